"""Lookup of values in lines of JSON, by keys and within limits."""

import json
from typing import Any

import numpy as np

from data_pipeline.config.corpus import Column
from data_pipeline.storage.budget import Budget

# A value may need a hundred bytes in memory but only two in the line.
JSON_VALUES = Budget(
    "values in a line of more than a million characters",
    2_000_000,
    "Remove all values except the text, or split the line",
)
JSON_COUNTED_FROM = 1_000_000  # characters; values in shorter lines are not counted
_COUNTED_AT_ONCE = 1024 * 1024


def parse_json(line: str) -> object:
    """Parse the JSON value of a line.

    Raises:
        ValueError: the line is not JSON, or has too many values.
    """
    if len(line) > JSON_COUNTED_FROM:
        JSON_VALUES.check(count_values(line), ValueError)
    try:
        return json.loads(line)
    # ValueError also covers integers of thousands of digits, which Python refuses to parse.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a JSON object, found {shown(line)} ({error})") from error


def count_values(line: str) -> int:
    """Estimate the number of values in a line without parsing it; exact for valid JSON."""
    # After the removal of escaped quotation marks, each mark begins or ends a string.
    data = line.encode(errors="replace").replace(b"\\\\", b"").replace(b'\\"', b"")
    count, is_inside = 1, 0
    for start in range(0, len(data), _COUNTED_AT_ONCE):
        part = np.frombuffer(data, np.uint8, min(_COUNTED_AT_ONCE, len(data) - start), start)
        inside = (np.cumsum(part == ord('"'), dtype=np.uint8) + is_inside) & 1
        begins = (part == ord(",")) | (part == ord("[")) | (part == ord("{"))
        count += int(np.count_nonzero(begins & (inside == 0)))
        is_inside = int(inside[-1])
    return count


def value_at(value: Any, column: Column) -> object:
    """Return the value under a key; a dot in the key descends into a nested object.

    Raises:
        ValueError: there is no such key.
    """
    for key in str(column).split("."):
        if not isinstance(value, dict):
            raise ValueError(f"expected an object with the key {key!r}, found {shown(value)}")
        if key not in value:
            raise ValueError(
                f"expected the key {key!r} of {column!r}, found {shown(sorted(value)[:20])}"
            )
        value = value[key]
    return value


def text_at(value: object, column: Column, of_numbers: frozenset[Column] = frozenset()) -> str:
    """Return the string under a key.

    Args:
        of_numbers: columns whose integers are read as strings of their digits.

    Raises:
        ValueError: there is no such key, or its value is not a string.
    """
    text = value_at(value, column)
    if column in of_numbers and isinstance(text, int) and not isinstance(text, bool):
        return str(text)
    if not isinstance(text, str):
        raise ValueError(f"expected a string at {column!r}, found {shown(text)}")
    text.encode()  # raises for a lone surrogate, which JSON's escapes allow
    return text


def shown(value: object) -> str:
    """Return the beginning of a value, for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
