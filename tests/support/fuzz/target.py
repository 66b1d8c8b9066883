"""Targets of fuzzing, and the conditions that hold for every case."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Target:
    """A kind of file that comes from others.

    Whatever its bytes, `read` returns or raises one of `refusals`, whose message says something.
    """

    name: str
    what: str  # what is changed, for the table
    make: Callable[[Random], bytes]  # the file of a case
    read: Callable[[bytes, Path], None]  # reads it as the program does; the folder is for it alone
    refusals: tuple[type[Exception], ...]

    def case(self, number: int) -> bytes:
        """The file of a case, which is the same every time."""
        return self.make(Random(f"{self.name} {number}"))
