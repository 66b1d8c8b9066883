"""Budgets: limits on inputs, checked while they stream and before memory is allocated.

    MEMBERS = Budget("members in an archive", 100_000_000, "Split the archive")
    ...
    MEMBERS.check(count, lambda problem: TarContentError(archive, member, problem))

Each budget is defined next to the code that counts the limited quantity. Real data stays far below
the limits. Input that exceeds a limit is a decompression bomb, has false headers, or is another
kind of file.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Limit on one quantity of an input."""

    what: str  # plural noun with its place, such as "samples in an archive"
    limit: int
    remedy: str  # a sentence without its full stop

    def check(self, count: int, error: Callable[[str], Exception]) -> None:
        """Compare the current count with the limit.

        Args:
            error: creates the exception from its message, which has both numbers and the remedy,
                but no final full stop.

        Raises:
            Exception: the result of `error`; the count exceeds the limit.
        """
        if count > self.limit:
            raise error(f"expected {self}, found {count:,}. {self.remedy}")

    def __str__(self) -> str:
        return f"at most {self.limit:,} {self.what}"


class TooManyBytesError(ValueError):
    """A file has more bytes than allowed.

    Attributes:
        found: text with the number of bytes that were found, exact or as a minimum.
    """

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found
