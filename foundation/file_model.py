"""Base class of files that users or other programs read: recipes, manifests, records, headers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_LISTED_PROBLEMS = 3
MAX_LISTED_CHARACTERS = 60

# Larger counts are unrealistic, and the sum of a few could exceed 64 bits.
MAX_COUNT = 10**15
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class FileModel(BaseModel):
    """Frozen part of a file format, which refuses unknown keys, infinite numbers and NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


def error_summary(error: ValueError) -> str:
    """Return a file's first problems in one line, with the values found.

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
    """Return ", found VALUE" for a plain value, and an empty text for others.

    A table is not quoted, because it may be as large as its file.
    """
    if isinstance(value, str):
        value = value[:MAX_LISTED_CHARACTERS]
    elif not isinstance(value, (int, float)):
        return ""
    return f", found {value!r:.{MAX_LISTED_CHARACTERS}}"
