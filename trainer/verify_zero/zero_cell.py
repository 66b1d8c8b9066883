"""Steps of a recipe on one rank under DeepSpeed, with its public functions alone."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import deepspeed
import torch
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor, nn

from data_pipeline.batching.plan import slots_of_rank
from trainer.process.placement import Placement
from trainer.verify_zero.passes import Passes, digest
from trainer.verify_zero.work import Digests, Work
from trainer.verify_zero.zero_grid import Cell

# DeepSpeed would compile an all-reduce for inference on CPUs when it is initialized.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

# Receives DeepSpeed's engine and the network before the first step.
Prepare = Callable[[Any, nn.Module], None]


def train_cell(
    work: Work,
    cell: Cell,
    placement: Placement,
    peaks: Sequence[Mapping[str, float]],
    elements: int,
    prepare: Prepare | None = None,
) -> list[dict[str, Digests]]:
    """Return the digests of all parameters after each step; a collective of the cell's ranks.

    Args:
        peaks: `Reference.peaks`.
        elements: `Reference.elements`.
        prepare: is called before the first step. Tests use it to plant faults.
    """
    passes = Passes(work, placement)
    slots = work.recipe.batching.micro_batches_per_step
    count = len(slots_of_rank(0, placement.world_size, slots))  # rank 0 has the most
    rounding = _Rounding(passes, placement.world_size)
    engine, *_ = deepspeed.initialize(
        model=passes.network,
        optimizer=passes.build_optimizer(work.recipe),
        config=cell.settings(work.recipe.engine, count, elements),
        dist_init_required=False,
    )
    if prepare is not None:
        prepare(engine, passes.network)
    found = []
    for step in range(1, work.steps + 1):
        passes.grids.restore(peaks[step - 1])
        data = next(passes.steps)
        batches = passes.batches(step, data)
        for number in range(count):
            rounding.discards = number >= len(data.slots)
            batch = passes.dummy() if rounding.discards else next(batches)
            sums = engine(*batch.inputs, passes.loss)
            engine.backward(sums[0] / data.units, scale_wrt_gas=False)
            engine.step()
        found.append({name: _digests(p) for name, p in passes.trained.items()})
    return found


class _Rounding:
    """Hooks that round each gradient to its grid, as soon as a backward pass has computed it.

    Attributes:
        discards: whether gradients are set to zero, in passes that only make their number equal on
            all ranks.
    """

    def __init__(self, passes: Passes, ranks: int) -> None:
        self.discards = False
        self._grids = passes.grids
        self._ranks = ranks
        for index, parameter in enumerate(passes.trained.values()):
            parameter.register_hook(functools.partial(self._round, index))

    def _round(self, index: int, gradient: Tensor) -> Tensor:
        if self.discards:
            return torch.zeros_like(gradient)
        gradient = gradient.clone()
        self._grids.round_([index], [gradient])
        return gradient.mul_(self._ranks)  # DeepSpeed divides by it


def _digests(parameter: nn.Parameter) -> Digests:
    master = safe_get_full_fp32_param(parameter)
    with deepspeed.zero.GatheredParameters([parameter]):
        read = digest(parameter)
        return Digests(read if master is None else digest(master), read)
