"""Steps of a recipe, computed by DeepSpeed on one rank of a cell, and in plain torch.

Only public functions of DeepSpeed are used. `Passes` has the network, batches, rounding and
digests, which are the same on both sides.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import deepspeed
import numpy as np
import torch
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.batching.plan import Cursor, slots_of_rank
from data_pipeline.batching.stream import RankStep, local_rank_steps
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from trainer.exact.grids import GradientGrids, largest_magnitudes
from trainer.process.placement import Placement
from trainer.recipe import TrainingRecipe
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.randomness import seed_torch
from trainer.tasks.task import training_task
from trainer.verify_zero.zero_grid import Cell, Digests, Work
from trainer.zero.frozen import freeze
from trainer.zero.settings import build_optimizer, parameter_groups

# DeepSpeed would compile an all-reduce for inference on CPUs when it is initialized.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

# Receives DeepSpeed's engine and the network before the first step.
Prepare = Callable[[Any, nn.Module], None]
LEARNING_RATE = 1e-3  # constant, because its value does not affect ZeRO


class Passes:
    """Network of a recipe, and the micro-batches of the recipe's first steps.

    Attributes:
        network: the network, on the device and in the recipe's precision.
        trained: its parameters by name.
        steps: this rank's micro-batches of each step.
        grids: the grids to which gradients are rounded; see `GradientGrids`.
    """

    def __init__(self, work: Work, placement: Placement) -> None:
        recipe = work.recipe
        store, manifest = open_dataset(recipe.data)
        self._device = placement.torch_device
        self._seed = recipe.seed
        self._task = training_task(recipe, manifest.header(), load_tokenizers(store, manifest))
        self.loss = self._task.loss
        slots = recipe.batching.micro_batches_per_step
        self.steps = local_rank_steps(
            WindowReader(store, manifest, recipe.data_settings),
            Cursor(),
            placement.rank,
            placement.world_size,
            slots,
        )
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        F.linear = _linear  # type: ignore[assignment]
        bf16 = recipe.engine.precision == "bf16"
        self.network = freeze(self._task.build_network(), recipe.trainer.frozen)
        self.network.to(self._device, torch.bfloat16 if bf16 else None)
        parameters = self.network.named_parameters()
        self.trained = {name: p for name, p in parameters if p.requires_grad}
        self.grids = GradientGrids(list(self.trained), slots * work.most_ranks)

    def build_optimizer(self, recipe: TrainingRecipe) -> torch.optim.Optimizer:
        groups = parameter_groups(self.network, recipe.trainer.optimizer.weight_decay)
        _, optimizer = build_optimizer(groups, recipe.trainer.optimizer, recipe.engine)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE
        return optimizer

    def batches(self, step: int, data: RankStep) -> Iterator[DeviceBatch]:
        """Yield the batches of a step, each with the random numbers of its slot."""
        for slot, micro_batch in zip(data.slots, data.micro_batches, strict=True):
            seed_torch(self._seed, "dropout", step, slot)
            yield self._task.collate_for_training(micro_batch, self._device)

    def dummy(self) -> DeviceBatch:
        return self._task.dummy(self._device)


def digest(tensor: Tensor) -> str:
    """Return a hash of the bits of a tensor."""
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.blake2b(flat.numpy().data, digest_size=16).hexdigest()


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute a linear layer; replaces `torch.nn.functional.linear` on both sides.

    In stage 3, DeepSpeed replaces torch's function by a function that rounds differently.
    """
    product = x.matmul(weight.t())
    return product if bias is None else product + bias


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
        prepare: called before the first step; tests use it to plant faults.
    """
    passes = Passes(work, placement)
    slots = work.recipe.batching.micro_batches_per_step
    count = len(slots_of_rank(0, placement.world_size, slots))  # no rank has more slots
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
        discards: whether gradients are set to zero, because the pass only makes the number of
            passes equal on all ranks.
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
        return gradient.mul_(self._ranks)  # undoes DeepSpeed's division


def _digests(parameter: nn.Parameter) -> Digests:
    master = safe_get_full_fp32_param(parameter)
    with deepspeed.zero.GatheredParameters([parameter]):
        read = digest(parameter)
        return Digests(read if master is None else digest(master), read)


@dataclass(frozen=True)
class Reference:
    """Expected results of the steps, on any number of ranks.

    Attributes:
        peaks: for each step, the largest absolute value of each parameter's gradient. The grids
            follow from it.
        digests: for each step, the digests of each parameter after the step.
        elements: the number of trained weights.
    """

    peaks: list[dict[str, float]]
    digests: list[dict[str, Digests]]
    elements: int


def reference_of(work: Work, placement: Placement) -> Reference:
    """Compute the steps: rounded gradients are added up, and the optimizer updates fp32 weights."""
    passes = Passes(work, placement)
    trained = list(passes.trained.values())
    masters = [nn.Parameter(parameter.detach().float()) for parameter in trained]
    optimizer = passes.build_optimizer(work.recipe)
    _optimize_instead(optimizer, dict(zip(trained, masters, strict=True)))
    found = Reference([], [], sum(parameter.numel() for parameter in trained))
    for step in range(1, work.steps + 1):
        data = next(passes.steps)
        gradients = []
        for batch in passes.batches(step, data):
            sums = passes.network(*batch.inputs, passes.loss)
            gradients.append(torch.autograd.grad(sums[0] / data.units, trained))
        amax = np.array([[*map(float, largest_magnitudes(list(slot)))] for slot in gradients])
        peaks = dict(zip(passes.trained, amax.max(axis=0).tolist(), strict=True))
        passes.grids.restore(peaks)
        for index, master in enumerate(masters):
            master.grad = _sum_of([slot[index] for slot in gradients], passes, index)
        optimizer.step()
        with torch.no_grad():
            for parameter, master in zip(trained, masters, strict=True):
                parameter.copy_(master)
        found.peaks.append(peaks)
        found.digests.append(
            {
                name: Digests(digest(master), digest(parameter))
                for (name, parameter), master in zip(passes.trained.items(), masters, strict=True)
            }
        )
    return found


def _sum_of(gradients: list[Tensor], passes: Passes, index: int) -> Tensor:
    total = torch.zeros_like(gradients[0], dtype=torch.float32)
    for gradient in gradients:
        passes.grids.round_([index], [gradient])
        total.add_(gradient)
    return total


def _optimize_instead(
    optimizer: torch.optim.Optimizer, instead: dict[nn.Parameter, nn.Parameter]
) -> None:
    for group in optimizer.param_groups:
        group["params"] = [instead[parameter] for parameter in group["params"]]
