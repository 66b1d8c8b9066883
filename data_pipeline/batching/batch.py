"""Micro-batches as plain numpy arrays, which data workers send to the ranks.

The sequences of a field are flat and without padding, see `data_pipeline.arrays`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from data_pipeline.arrays import FieldArrays, Int32Array, Int64Array, totals_before
from data_pipeline.batching.plan import WindowPlan


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Examples of one forward and backward pass: the aligned sequences of all fields.

    Without `starts` and `rows`, each row contains one whole example. With `starts` and `rows`, a
    row may contain several parts, each cut from an example.
    """

    pair_ids: Int64Array  # [parts], index of each part's example in the manifest's order
    fields: dict[str, FieldArrays]
    starts: Int64Array | None = None  # [parts], offset of each part in its example
    rows: Int32Array | None = None  # [parts], each part's row, ascending from 0

    def tokens(self, field: str) -> int:
        """Return the number of tokens of a field, EOS included, padding excluded."""
        return len(self.fields[field].ids)

    @property
    def bytes(self) -> int:
        """Total size of all arrays, in bytes."""
        cuts = sum(array.nbytes for array in (self.starts, self.rows) if array is not None)
        return self.pair_ids.nbytes + cuts + sum(field.bytes for field in self.fields.values())


def assemble(
    pair_ids: Int64Array, fields: Mapping[str, FieldArrays], plan: WindowPlan
) -> list[MicroBatch]:
    """Cut a window's arrays into the micro-batches of its plan.

    The sequences are reordered once for the whole window. The arrays of micro-batches are views of
    the reordered arrays.
    """
    pair_ids = pair_ids[plan.order]
    cuts = plan.cuts
    if cuts is None:
        ordered = {name: field.take(plan.order) for name, field in fields.items()}
    else:
        ordered = {
            name: field.take_parts(plan.order, cuts.starts, cuts.stops)
            for name, field in fields.items()
        }
    pair_bounds = plan.bounds.tolist()
    token_bounds = {
        name: totals_before(field.lengths, plan.bounds).tolist() for name, field in ordered.items()
    }
    return [
        MicroBatch(
            pair_ids[start:stop],
            {
                name: FieldArrays(
                    field.ids[token_bounds[name][index] : token_bounds[name][index + 1]],
                    field.lengths[start:stop],
                )
                for name, field in ordered.items()
            },
            cuts.starts[start:stop] if cuts else None,
            cuts.rows[start:stop] if cuts else None,
        )
        for index, (start, stop) in enumerate(pairwise(pair_bounds))
    ]
