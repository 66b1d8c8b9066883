"""Base class of file formats that users or other programs read, and strict reader of JSON.

JSON from untrusted sources is parsed within limits and without ambiguities. Limits on the file's
size and on the number of its values bound the memory of the parsed result, since an empty list
takes 20 times the memory of its text. A limit on the depth keeps recursive functions on the result
below Python's recursion limit.
"""

import json
import re
from functools import partial
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_DEPTH = 64
MAX_LISTED_PROBLEMS = 3
MAX_LISTED_CHARACTERS = 60

# Larger counts are unrealistic, and the sum of a few of them could exceed 64 bits.
MAX_COUNT = 10**15
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class JsonLimits(NamedTuple):
    """Maximum sizes of a JSON file."""

    bytes: int
    values: int
    keys: int = 20_000  # maximum of each object; limited because each unknown key is reported


# Limits for files that are small enough for a person to read.
SMALL = JsonLimits(bytes=1_000_000, values=100_000)
_HALF_OF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


class FileModel(BaseModel):
    """Frozen model of a file or of a part; refuses unknown keys, infinite numbers and NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @classmethod
    def from_json(cls, data: bytes, limits: JsonLimits = SMALL) -> Self:
        """Return the content of a JSON file.

        Raises:
            ValueError: the file is not of this format, or `parse_object` refuses it.
        """
        return cls.model_validate(parse_object(data, limits))


def error_summary(error: Exception) -> str:
    """Return a file's first problems in one line, with the invalid values.

    Args:
        error: a `ValidationError`, or another error of reading the file, whose text is returned.
    """
    if not isinstance(error, ValidationError):
        return str(error)
    problems = error.errors(include_url=False)
    lines = [
        f"{'.'.join(map(str, problem['loc']))[:200] or 'the whole file'}: "
        f"{problem['msg'].removeprefix('Value error, ')}"
        f"{_found(problem['input']) if problem['type'] != 'value_error' else ''}"
        for problem in problems[:MAX_LISTED_PROBLEMS]
    ]
    more = len(problems) - len(lines)
    return "; ".join(lines) + (f"; and {more:,} more" if more else "")


def _found(value: object) -> str:
    """Return ", found VALUE" for a plain value, and an empty text for a table.

    A table is not quoted, because it may be as large as its file.
    """
    if isinstance(value, str):
        value = value[:MAX_LISTED_CHARACTERS]
    elif not isinstance(value, (int, float)):
        return ""
    return f", found {value!r:.{MAX_LISTED_CHARACTERS}}"


def parse_json(data: bytes, limits: JsonLimits = SMALL) -> Any:
    """Return the value of a JSON file.

    Raises:
        ValueError: the file is too large or nested too deep, repeats a key, contains NaN or an
            infinite number, or is not JSON in UTF-8; the message gives the position.
    """
    if len(data) > limits.bytes:
        raise ValueError(f"{len(data):,} bytes, expected at most {limits.bytes:,}")
    # Commas and brackets in strings are counted too, which only makes the limit stricter.
    values = 1 + sum(map(data.count, (b",", b"[", b"{")))
    if values > limits.values:
        raise ValueError(f"up to {values:,} values, expected at most {limits.values:,}")
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=partial(_object, limits.keys), parse_constant=_refused
        )
    except RecursionError as error:
        raise _too_deep() from error
    if _is_deeper(value, MAX_DEPTH):
        raise _too_deep()
    if _HALF_OF_A_PAIR.search(data):
        json.dumps(value, ensure_ascii=False).encode()  # raises an error for a lone surrogate
    return value


def parse_object(data: bytes, limits: JsonLimits = SMALL) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        ValueError: the file contains something else, or `parse_json` refuses it.
    """
    value = parse_json(data, limits)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {_NAMES[type(value)]}")
    return value


_NAMES: dict[type, str] = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _object(most: int, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > most:
        raise ValueError(f"an object of {len(pairs):,} keys, expected at most {most:,}")
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {name[:80]!r} appears twice in one object")
            seen.add(name)
    return found


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects nested deeper than {MAX_DEPTH}")


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value] if isinstance(value, (list, dict)) else []
    for _ in range(depth):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (list, dict))
        ]
        if not level:
            return False
    return bool(level)
