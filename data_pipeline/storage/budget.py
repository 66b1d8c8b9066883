"""Budgets: the most that an input may ask for, counted while it streams, before memory is taken.

    MEMBERS = Budget("members in an archive", 100_000_000, "Split the archive")
    ...
    MEMBERS.check(count, lambda problem: TarContentError(archive, member, problem))

Each budget stands beside the code that counts for it. Real data stays far below; what is above is a
decompression bomb, a file that lies about itself, or a file of another kind.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """A limit on one thing that inputs have."""

    what: str  # what is counted, in the plural and with its place: "samples in an archive"
    limit: int
    remedy: str  # a sentence without its full stop

    def check(self, count: int, error: Callable[[str], Exception]) -> None:
        """Compares what was counted so far with the limit.

        Args:
            error: makes the exception from a text that holds both numbers and the remedy, and ends
                without a full stop.

        Raises:
            Exception: what `error` has made; the input asks for more.
        """
        if count > self.limit:
            raise error(f"expected {self}, found {count:,}. {self.remedy}")

    def __str__(self) -> str:
        return f"at most {self.limit:,} {self.what}"
