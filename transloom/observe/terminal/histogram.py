"""Draw a histogram of sentence lengths with block characters.

number of pairs with length 0, 1, 2, ... ──▶ at most 20 bins ──▶ one bar per bin, with its count
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import ArrayLike
from rich.bar import Bar
from rich.table import Table

MAX_BINS = 20
BAR_WIDTH = 44  # leaves space for the numbers in a terminal of 80 columns
BIN_WIDTHS = (1, 2, 5)  # round widths are these numbers times powers of ten


@dataclass(frozen=True)
class Bin:
    """Number of sequences with lengths from `first` to `last`, both included."""

    first: int
    last: int
    count: int


def quantile(counts: ArrayLike, share: float) -> int:
    """Return the shortest length that covers at least this share of the sequences.

    At least this share of all sequences are no longer than the returned length.

    Args:
        counts: number of sequences with length 0, 1, 2, ...; the sum must be at least 1.
        share: number from 0 to 1.
    """
    up_to = np.cumsum(np.asarray(counts))
    return int(np.searchsorted(up_to, share * up_to[-1]))


def bins_of(counts: ArrayLike) -> list[Bin]:
    """Return at most 20 bins from the shortest to the longest sequence.

    The bins have the same width, at least up to the 99th percentile. If longer sequences do not fit
    into bins of this width, the last bin is wider.
    """
    numbers = np.asarray(counts)
    (present,) = np.nonzero(numbers)
    shortest, longest = int(present[0]), int(present[-1])
    width = _bin_width(shortest, quantile(numbers, 0.99))
    starts = list(range(shortest - shortest % width, longest + 1, width))[:MAX_BINS]
    stops = [*starts[1:], longest + 1]
    return [
        Bin(start, stop - 1, int(numbers[start:stop].sum()))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _bin_width(shortest: int, longest: int) -> int:
    """Return the smallest round width at which fewer than `MAX_BINS` bins cover the range."""
    widths = (10**power * digit for power in count() for digit in BIN_WIDTHS)
    return next(width for width in widths if longest // width - shortest // width + 1 < MAX_BINS)


def histogram(counts: ArrayLike) -> Table:
    """Return the histogram as a table with the columns length, bar and count."""
    return _drawn(bins_of(counts))


def histogram_of_powers(counts: Sequence[int]) -> Table:
    """Return a histogram with the bins 0, 1, 2–3, 4–7 and so on.

    Args:
        counts: the number of sequences in each of these bins, at least one of them not 0.
    """
    bins = [Bin(0, 0, counts[0])]
    bins += [Bin(2**n, 2 ** (n + 1) - 1, count) for n, count in enumerate(counts[1:])]
    shown = [bin_ for bin_ in bins if bin_.count]
    return _drawn([bin_ for bin_ in bins if shown[0].first <= bin_.first <= shown[-1].first])


def _drawn(bins: list[Bin]) -> Table:
    largest = max(bin_.count for bin_ in bins)
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(width=BAR_WIDTH)
    table.add_column(justify="right", no_wrap=True)
    for bin_ in bins:
        # A bin that is not empty must be visible: its bar is at least an eighth of a character.
        end = max(bin_.count, largest / (8 * BAR_WIDTH)) if bin_.count else 0
        table.add_row(_label(bin_), Bar(largest, 0, end, color="cyan"), f"{bin_.count:,}")
    return table


def _label(bin_: Bin) -> str:
    return f"{bin_.first}" if bin_.first == bin_.last else f"{bin_.first}–{bin_.last}"
