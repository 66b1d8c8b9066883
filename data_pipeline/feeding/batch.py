"""Micro-batches as plain numpy arrays: what a data worker hands to a rank.

Sequences are stored flat, one after the other without padding, each ending in EOS. Every array
is contiguous, so that Ray's object store passes it on without a copy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.feeding.plan import Int32Array, Int64Array, WindowPlan, ranges

# In whatever type they were made in: shards have the smallest that holds them, and half the bytes
# are half the way to a rank.
IdArray = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class FieldArrays:
    """The sequences of one field."""

    ids: IdArray  # [tokens], all sequences concatenated, EOS included
    lengths: Int32Array  # [sequences]

    def take(self, order: Int64Array) -> "FieldArrays":
        """The sequences `order`, in that order."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        lengths = self.lengths.take(order)
        return FieldArrays(
            self.ids.take(ranges((ends - self.lengths).take(order), lengths)), lengths
        )

    def part(self, start: int, stop: int) -> "FieldArrays":
        """The sequences `start` to `stop`, without a copy."""
        if (start, stop) == (0, len(self.lengths)):
            return self
        first = int(self.lengths[:start].sum())
        tokens = int(self.lengths[start:stop].sum())
        return FieldArrays(self.ids[first : first + tokens], self.lengths[start:stop])

    @property
    def bytes(self) -> int:
        return self.ids.nbytes + self.lengths.nbytes


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Aligned sequences of all fields, a part of a step that goes through the model at once."""

    pair_ids: Int64Array  # [pairs], the pair's number in the manifest's order
    fields: dict[str, FieldArrays]

    def tokens(self, field: str) -> int:
        """Tokens of a field, EOS included, padding not."""
        return len(self.fields[field].ids)

    @property
    def bytes(self) -> int:
        """Bytes of all arrays."""
        return self.pair_ids.nbytes + sum(field.bytes for field in self.fields.values())


def concatenate(parts: list[FieldArrays]) -> FieldArrays:
    if not parts:
        return FieldArrays(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32))
    return FieldArrays(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.lengths for part in parts]),
    )


def totals_before(lengths: Int32Array, bounds: Int64Array) -> Int64Array:
    """The tokens before each of the sequences `bounds`, of which the last may be the end."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))[bounds]


def assemble(
    pair_ids: Int64Array, fields: Mapping[str, FieldArrays], plan: WindowPlan
) -> list[MicroBatch]:
    """Cuts a window's arrays into the micro-batches of its plan.

    The sequences are reordered once for the whole window; the micro-batches are views of that.
    """
    pair_ids = pair_ids[plan.order]
    ordered = {name: field.take(plan.order) for name, field in fields.items()}
    pair_bounds = plan.bounds.tolist()
    token_bounds = {
        name: totals_before(field.lengths, plan.bounds).tolist() for name, field in ordered.items()
    }
    return [
        MicroBatch(
            pair_ids[start:stop],
            {
                name: FieldArrays(
                    field.ids[token_bounds[name][number] : token_bounds[name][number + 1]],
                    field.lengths[start:stop],
                )
                for name, field in ordered.items()
            },
        )
        for number, (start, stop) in enumerate(pairwise(pair_bounds))
    ]
