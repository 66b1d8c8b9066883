"""Mutations that change a valid file in some places, chosen by a random generator.

bytes ──mutate_bytes──▶ bytes             tar ──reseal──▶ tar whose checksums are right again
values of JSON or YAML ──mutate_tree──▶ values ──mutate_lines──▶ text with lines moved
"""

import copy
import re
from collections.abc import Callable
from random import Random
from typing import Any

NUMBERS = (0, 1, -1, 2, 127, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 10**25)
DEEP = "@deep"  # placeholder for nested lists until the text is written
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *(None, True, False, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "0", "x" * 5_000, "\x1b]0;title\x07", "\u202e", "\0", "../../x", "/etc/passwd"),
    *("..%2f", "a" * 64, "https://user:secret@host/x", "!!python/object:os.system", DEEP),
    *([], {}, [[]], [None], {"": None}, [0] * 1_000),
)


def mutate_bytes(random: Random, data: bytes, other: bytes) -> bytes:
    """Make one to four small changes; parts of `other` may be inserted."""
    for _ in range(random.choice((1, 1, 2, 4))):
        data = random.choice(_OF_BYTES)(random, data, other)
    return data


def mutate_tree(random: Random, value: Any) -> Any:
    """Replace, remove, move or repeat one to three values of a copy of `value`."""
    value = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 2, 3))):
        inner = [holder for holder in _holders(value) if holder]
        if not inner:
            break
        holder = random.choice(inner)
        key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        _OF_TREES[random.randrange(len(_OF_TREES))](random, holder, key, inner)
    return value


def mutate_lines(random: Random, text: str) -> str:
    """Repeat, move or remove a line; keys can therefore occur twice."""
    lines = text.splitlines(keepends=True) or [""]
    line = random.choice(lines)
    if random.random() < 0.5:
        lines.remove(line)
    if random.random() < 0.7:
        lines.insert(random.randrange(len(lines) + 1), line)
    return "".join(lines)


def with_depth(text: str, depth: int = 100_000) -> str:
    """Replace the placeholder of `mutate_tree` by nested lists."""
    return re.sub(f"['\"]?{DEEP}['\"]?", "[" * depth + "]" * depth, text)


def reseal(tar: bytes) -> bytes:
    """Correct the checksums in the headers of a tar archive."""
    data = bytearray(tar)
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    return bytes(data)


def _part(random: Random, data: bytes, at_most: int = 2_000) -> slice:
    start = random.randrange(len(data) + 1)
    return slice(start, start + random.choice((1, 2, 4, 16, 512, at_most)))


def _flip(random: Random, data: bytes, other: bytes) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _put_number(random: Random, data: bytes, other: bytes) -> bytes:
    width = random.choice((1, 2, 4, 8))
    number = random.choice(NUMBERS) % (1 << 8 * width)
    start = random.randrange(len(data) + 1)
    written = number.to_bytes(width, random.choice(("little", "big")))
    return data[:start] + written + data[start + width :]


def _put_digits(random: Random, data: bytes, other: bytes) -> bytes:
    found = list(re.finditer(rb"\d+", data[:100_000]))
    if not found:
        return data
    digits = random.choice(found)
    return data[: digits.start()] + b"%d" % random.choice(NUMBERS) + data[digits.end() :]


def _remove(random: Random, data: bytes, other: bytes) -> bytes:
    part = _part(random, data)
    return data[: part.start] + data[part.stop :]


def _cut(random: Random, data: bytes, other: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _repeat(random: Random, data: bytes, other: bytes) -> bytes:
    part = _part(random, data)
    return data[: part.start] + data[part] * random.choice((2, 3, 100)) + data[part.stop :]


def _insert(random: Random, data: bytes, other: bytes) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + random.randbytes(random.choice((1, 8, 512))) + data[start:]


def _splice(random: Random, data: bytes, other: bytes) -> bytes:
    part = _part(random, other)
    start = random.randrange(len(data) + 1)
    return data[:start] + other[part] + data[start + random.choice((0, 512)) :]


_OF_BYTES: tuple[Callable[[Random, bytes, bytes], bytes], ...] = (
    *(_flip, _put_number, _put_digits, _remove, _cut, _repeat, _insert, _splice),
)


def _holders(value: Any) -> list[Any]:
    """Return all dictionaries and lists in a value, including the value itself."""
    if isinstance(value, dict):
        return [value, *(holder for inner in value.values() for holder in _holders(inner))]
    if isinstance(value, list):
        return [value, *(holder for inner in value for holder in _holders(inner))]
    return []


def _replace(random: Random, holder: Any, key: Any, inner: list[Any]) -> None:
    holder[key] = copy.deepcopy(random.choice(VALUES))


def _change(random: Random, holder: Any, key: Any, inner: list[Any]) -> None:
    value = holder[key]
    if isinstance(value, str):
        holder[key] = mutate_bytes(random, value.encode(), b"/.{}0").decode(errors="replace")
    elif isinstance(value, int | float):
        holder[key] = value * random.choice((-1, 0, 10**6)) + random.choice((-1, 0, 1))
    elif isinstance(value, list):
        holder[key] = value * random.choice((0, 2, 50))


def _drop(random: Random, holder: Any, key: Any, inner: list[Any]) -> None:
    del holder[key]


def _move(random: Random, holder: Any, key: Any, inner: list[Any]) -> None:
    target = random.choice(inner)
    moved = copy.deepcopy(holder[key])
    if isinstance(target, list):
        target.append(moved)
    else:
        target[random.choice((str(key), *target))] = moved


_OF_TREES = (_replace, _replace, _change, _drop, _move)
