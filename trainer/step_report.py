"""What a step's slots have to tell each other, in one sum over the ranks.

Every slot writes into its own columns and leaves the others zero, so the sum is exact: each rank
then holds the very values of all slots and folds them in slot order. Whatever follows from them
(the loss, the data digest, whether the loss is finite, whether to stop) is the same on all ranks,
for any number of ranks, and is known before the gradients are applied.
"""

from dataclasses import dataclass

import numpy as np
import torch

from model.loss import LossSums
from trainer.batch import DeviceBatch
from trainer.distributed import Placement, sum_over_ranks

_DIGEST_WORDS = 8  # 32 bytes as eight 32-bit words, each exact in a double
_SMOOTHED, _NLL, _PADDING, _POSITIONS = range(4)
_COLUMNS = 4 + _DIGEST_WORDS


@dataclass(frozen=True)
class StepReport:
    """A step's sums over all slots; equal on all ranks."""

    smoothed_sum: float
    nll_sum: float
    padding_fraction: float
    slot_digests: list[bytes]
    data_stall_seconds: float  # mean over the ranks
    stop_requested: bool  # by any rank


def exchange(
    slots: range,
    batches: list[DeviceBatch],
    losses: list[LossSums],
    *,
    micro_batches_per_step: int,
    data_stall_seconds: float,
    stop_requested: bool,
    placement: Placement,
) -> StepReport:
    """Sum what the ranks' slots report; a collective that every rank enters once a step."""
    table = np.zeros((micro_batches_per_step + 1, _COLUMNS))
    if losses:
        sums = torch.stack([torch.stack(loss) for loss in losses]).double().cpu().numpy()
        table[slots.start : slots.stop, [_SMOOTHED, _NLL]] = sums
    for slot, batch in zip(slots, batches, strict=True):
        table[slot, [_PADDING, _POSITIONS]] = batch.padding, batch.positions
        table[slot, 4:] = np.frombuffer(batch.digest, dtype="<u4")
    table[-1, :2] = data_stall_seconds, float(stop_requested)
    table = sum_over_ranks(torch.from_numpy(table), placement).numpy()
    rows, flags = table[:-1], table[-1]
    totals = np.add.accumulate(rows[:, :4], axis=0)[-1]  # in slot order, not pairwise
    return StepReport(
        smoothed_sum=float(totals[_SMOOTHED]),
        nll_sum=float(totals[_NLL]),
        padding_fraction=float(totals[_PADDING] / totals[_POSITIONS]),
        slot_digests=[row.astype("<u4").tobytes() for row in rows[:, 4:]],
        data_stall_seconds=float(flags[0]) / placement.world_size,
        stop_requested=bool(flags[1] > 0),
    )
