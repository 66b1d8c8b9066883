"""Sequences of token ids in flat arrays, concatenated without padding.

A whole text ends with EOS. Every array is contiguous, so that Ray's object store can share it
without a copy.
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
# Token ids of any integer type. Shards use the smallest type that can represent their ids, which
# halves the bytes and the transfer time to a rank.
IdArray = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class FieldArrays:
    """Sequences of one field, such as the source sentences of several pairs."""

    ids: IdArray  # [tokens], all sequences concatenated, EOS included
    lengths: Int32Array  # [sequences]

    def take(self, order: Int64Array) -> "FieldArrays":
        """Return the sequences with the indices `order`, in that order."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        lengths = self.lengths.take(order)
        return FieldArrays(
            self.ids.take(ranges((ends - self.lengths).take(order), lengths)), lengths
        )

    def take_parts(self, order: Int64Array, starts: Int64Array, stops: Int64Array) -> "FieldArrays":
        """Return the tokens `starts[i]` to `stops[i]` (exclusive) of each sequence `order[i]`."""
        firsts = (np.cumsum(self.lengths, dtype=np.int64) - self.lengths).take(order)
        sizes = stops - starts
        return FieldArrays(self.ids.take(ranges(firsts + starts, sizes)), sizes.astype(np.int32))

    def rows(self) -> list[list[int]]:
        """Return the ids of each sequence as a list."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        return [sequence.tolist() for sequence in np.split(self.ids, ends)[:-1]]

    def part(self, start: int, stop: int) -> "FieldArrays":
        """Return the sequences `start` to `stop` (exclusive), without a copy."""
        if (start, stop) == (0, len(self.lengths)):
            return self
        first = int(self.lengths[:start].sum())
        tokens = int(self.lengths[start:stop].sum())
        return FieldArrays(self.ids[first : first + tokens], self.lengths[start:stop])

    def with_first(self, token: int) -> "FieldArrays":
        """Return the sequences, each with `token` prepended."""
        starts = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
        return FieldArrays(np.insert(self.ids, starts, token), self.lengths + np.int32(1))

    @property
    def bytes(self) -> int:
        return self.ids.nbytes + self.lengths.nbytes


def flattened(sequences: list[list[int]]) -> FieldArrays:
    """Concatenate lists of token ids into flat int32 arrays."""
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


def sums_of_sequences(values: NDArray[Any], lengths: Int32Array) -> Int64Array:
    """Return the sum of each sequence's values, [sequences].

    Args:
        values: [tokens], a number for each token of all sequences.
    """
    before = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    ends = np.cumsum(lengths, dtype=np.int64)
    sums: Int64Array = before[ends] - before[ends - lengths]
    return sums


def totals_before(lengths: Int32Array, bounds: Int64Array) -> Int64Array:
    """Return the number of tokens before sequence i, for each i in `bounds`.

    If i is the number of sequences, the result is the total number of tokens.
    """
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))[bounds]


def balanced_block(index: int, blocks: int, items: int) -> range:
    """Return the indices of the items in block `index` if `items` are split evenly into blocks.

    Blocks are contiguous. The first `items mod blocks` blocks have one item more than the others.
    """
    size, larger = divmod(items, blocks)
    start = index * size + min(index, larger)
    return range(start, start + size + (index < larger))


def ranges(starts: Int64Array, sizes: Int32Array | Int64Array) -> Int64Array:
    """Concatenate `arange(start, start + size)` for all starts and sizes, without a loop."""
    ends = np.cumsum(sizes, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    numbers = np.repeat(starts - (ends - sizes), sizes)
    numbers += np.arange(total)
    return numbers
