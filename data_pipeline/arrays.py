"""Arrays of sequences: flat, one after the other without padding, each ending in EOS.

Every array is contiguous, so that Ray's object store passes it on without a copy.
"""

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
UInt64Array = NDArray[np.uint64]
Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
# Ids in whatever type they were made in. Shards have the smallest type that holds them: half the
# bytes reach a rank in half the time.
IdArray = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class FieldArrays:
    """The sequences of one field."""

    ids: IdArray  # [tokens], all sequences concatenated, EOS included
    lengths: Int32Array  # [sequences]

    def take(self, order: Int64Array) -> "FieldArrays":
        """The sequences whose numbers are in `order`, in that order."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        lengths = self.lengths.take(order)
        return FieldArrays(
            self.ids.take(ranges((ends - self.lengths).take(order), lengths)), lengths
        )

    def take_parts(self, order: Int64Array, starts: Int64Array, stops: Int64Array) -> "FieldArrays":
        """The tokens `starts[i]` to `stops[i]` (exclusive) of each sequence `order[i]`."""
        firsts = (np.cumsum(self.lengths, dtype=np.int64) - self.lengths).take(order)
        sizes = stops - starts
        return FieldArrays(self.ids.take(ranges(firsts + starts, sizes)), sizes.astype(np.int32))

    def rows(self) -> list[list[int]]:
        """The ids of each sequence."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        return [sequence.tolist() for sequence in np.split(self.ids, ends)[:-1]]

    def part(self, start: int, stop: int) -> "FieldArrays":
        """The sequences `start` to `stop`, without a copy."""
        if (start, stop) == (0, len(self.lengths)):
            return self
        first = int(self.lengths[:start].sum())
        tokens = int(self.lengths[start:stop].sum())
        return FieldArrays(self.ids[first : first + tokens], self.lengths[start:stop])

    def with_first(self, token: int) -> "FieldArrays":
        """The sequences with a token before each."""
        starts = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
        return FieldArrays(np.insert(self.ids, starts, token), self.lengths + np.int32(1))

    @property
    def bytes(self) -> int:
        return self.ids.nbytes + self.lengths.nbytes


def flattened(sequences: list[list[int]]) -> FieldArrays:
    """The sequences as one flat field, int32."""
    lengths = np.fromiter(map(len, sequences), dtype=np.int32, count=len(sequences))
    tokens = chain.from_iterable(sequences)
    return FieldArrays(np.fromiter(tokens, dtype=np.int32, count=int(lengths.sum())), lengths)


def concatenate(parts: list[FieldArrays]) -> FieldArrays:
    if not parts:
        return FieldArrays(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32))
    return FieldArrays(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.lengths for part in parts]),
    )


def totals_before(lengths: Int32Array, bounds: Int64Array) -> Int64Array:
    """The tokens before each of the sequences `bounds`; the last bound may be the end."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))[bounds]


def balanced_block(index: int, blocks: int, items: int) -> range:
    """The items of block `index` when `items` are shared evenly by `blocks` contiguous blocks.

    The first `items mod blocks` blocks have one item more than the others.
    """
    size, larger = divmod(items, blocks)
    start = index * size + min(index, larger)
    return range(start, start + size + (index < larger))


def ranges(starts: Int64Array, sizes: Int32Array | Int64Array) -> Int64Array:
    """Concatenates `arange(start, start + size)` for all starts and sizes, without a loop."""
    ends = np.cumsum(sizes, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    numbers = np.repeat(starts - (ends - sizes), sizes)
    numbers += np.arange(total)
    return numbers
