"""Formatting of numbers, lists and changes in messages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_LONGEST_SPAN = 1e15  # seconds; replaces longer spans, as infinity cannot be split into units


def counted(count: int | float, noun: str) -> str:
    """Return a number with its noun, in singular or plural: 1 rank, 1,000 pairs, 2 batches."""
    ending = "" if count == 1 else "es" if noun.endswith(("ch", "s", "x")) else "s"
    return f"{count:,g} {noun}{ending}" if isinstance(count, float) else f"{count:,} {noun}{ending}"


def steps_of(step: int, max_steps: int | None) -> str:
    """Return a run's last step and its goal, such as "500 of 1,000".

    A run may have passed a goal that was lowered later.
    """
    if not max_steps:
        return f"{step:,}"
    if step > max_steps:
        return f"{step:,} (max_steps is {max_steps:,})"
    return f"{step:,} of {max_steps:,}"


def span(seconds: float) -> str:
    """Return a time span in its two largest units, as the dashboard shows it: 12 s, 3 h 5 min."""
    rounded = round(min(max(0.0, seconds), _LONGEST_SPAN))
    units = {
        "d": rounded // 86400,
        "h": rounded // 3600 % 24,
        "min": rounded // 60 % 60,
        "s": rounded % 60,
    }
    largest = next((place for place, count in enumerate(units.values()) if count), 3)
    parts = list(units.items())[largest : largest + 2]
    return " ".join(f"{count:,} {unit}" for unit, count in parts if count) or "0 s"


def byte_count(amount: float) -> str:
    """Return a number of bytes in words: 8.2 MB, 0.76 GB, 12.4 GB."""
    if amount < 100_000_000:
        return f"{amount / 1e6:.1f} MB"
    return f"{amount / 1e9:.2f} GB" if amount < 10_000_000_000 else f"{amount / 1e9:.1f} GB"


def join_items(items: Iterable[object]) -> str:
    """Return the items, separated by commas, without brackets and quotes, or "none" if empty."""
    return ", ".join(map(format_value, items)) or "none"


def join_first(
    items: Sequence[object], most: int, count: int | None = None, noun: str | None = "other"
) -> str:
    """Return the first items as `join_items` does, and the number of items left out.

    Args:
        count: number of all items, if `items` has only some of them.
        noun: noun for the items left out; None for "and 3 more".
    """
    shown = items[:most]
    more = (len(items) if count is None else count) - len(shown)
    rest = f"{more:,} more" if noun is None else counted(more, noun)
    return join_items(shown) + (f" and {rest}" if more > 0 else "")


def format_value(value: Any) -> str:
    """Return a value in the notation of recipes, not of Python.

    In a mapping, a list of two values is shown as a change from one to the other.
    """
    if isinstance(value, Mapping):
        return join_items(f"{key} {_inner(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return join_items(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _inner(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2:
        return f"{format_value(value[0])} → {format_value(value[1])}"
    return format_value(value)
