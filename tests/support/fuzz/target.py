"""Fuzzing targets, and the condition that holds for every case."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Target:
    """Kind of file that the program gets from others.

    For any content, `read` must return or raise one of `refusals` with a message.
    """

    name: str
    what: str  # the changed parts, for the table
    make: Callable[[Random], bytes]  # returns the file of a case
    read: Callable[[bytes, Path], None]  # reads the file as the program does, in an empty folder
    refusals: tuple[type[Exception], ...]

    def case(self, number: int) -> bytes:
        """Return the file of a case; equal numbers give equal files."""
        return self.make(Random(f"{self.name} {number}"))
