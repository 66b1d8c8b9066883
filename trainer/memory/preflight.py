"""Memory preflight: try the largest micro-batches of a run before its first step.

    lengths of the dataset, budget ──▶ the widest shapes ──▶ forward and backward of each
        ──▶ no side effect, or MemoryPreflightError

The preflight has two passes. First every rank tries the shapes independently, with all weights in
its memory (ZeRO-3 gathers them, as for validation). If a rank runs out of memory in this pass, no
other rank waits for it: the rank searches for a budget that fits, and then all ranks raise the
error together.

On a CPU, the memory of a recipe without extensions is first estimated from the sizes of its
batches. If every rank has several times that memory, nothing is tried. Otherwise each rank tries a
sixteenth of the rows first. If this shows ample memory on every rank, nothing else is tried,
because further trials would take one or two CPU seconds of each start.

Then all ranks try the shapes as in a step, which adds DeepSpeed's buffers. A rank that runs out of
memory only in this pass cannot notify the others, which wait for it in a collective. That rank
raises the error alone, and the launcher of the ranks must end the others.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from data_pipeline.batching.task import MicroBatchShape
from model.config.layers import LayersConfig
from trainer.errors import MemoryPreflightError
from trainer.memory import device_memory
from trainer.memory.activation_size import activation_bytes
from trainer.memory.device_memory import (
    TINY_DIVISOR,
    fits,
    has_ample_memory,
    is_out_of_memory,
    memory_bytes,
    memory_text,
)
from trainer.memory.heldout_preflight import InferenceModel, preflight_heldout
from trainer.memory.heldout_preflight import widest as widest_heldout
from trainer.process import host_memory
from trainer.process.distributed import sum_over_ranks
from trainer.process.placement import Placement
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.network import sum_names
from trainer.tasks.task import Scoring, TrainingTask
from trainer.zero.engine import TrainingEngine

# Function that makes a batch of a given shape, without padding.
Synthetic = Callable[[Any], DeviceBatch]

_FAILED, _SHAPE, _FITTING, _AMPLE, _MEMORY = range(5)
_BYTES_PER_WEIGHT = 16  # for fp32 gradients, and the buckets in which they are reduced
_BYTES_PER_WEIGHT_ESTIMATED = 32  # the same, and fp32 weights that ZeRO-3 gathers into a replica


def run_preflight(
    engine: TrainingEngine, task: TrainingTask, scoring: Scoring, inference_model: InferenceModel
) -> None:
    """Try the widest micro-batches of this dataset, then the widest batches of a validation.

    A collective. Call it when everything that a step needs in memory is allocated, including Adam's
    moments. It does not affect the training that follows.

    Args:
        engine: the engine of this rank.
        task: the task, for its shapes and synthetic batches.
        scoring: the scoring of the validation.
        inference_model: returns a context with the model for validation.

    Raises:
        MemoryPreflightError: a rank has too little memory.
    """
    widest = task.data.widest(task.manifest, task.recipe.data_settings)
    if _all_ranks_are_small(engine, task, scoring, widest):
        return
    synthetic = partial(task.synthetic, device=engine.placement.torch_device)
    preflight(engine, widest, task.recipe.batching.max_tokens_per_micro_batch, synthetic)
    preflight_heldout(inference_model, scoring, engine.placement)


def _all_ranks_are_small(
    engine: TrainingEngine, task: TrainingTask, scoring: Scoring, widest: Sequence[MicroBatchShape]
) -> bool:
    """Return whether an estimate shows that all ranks have ample memory; a collective on CPUs."""
    placement, recipe = engine.placement, task.recipe
    if placement.device != "cpu" or recipe.extensions:
        return False  # estimates cover only CPUs and built-in code
    ample = device_memory.AMPLE_SHARE * memory_bytes(placement)
    is_small = _estimated_bytes(engine, task, scoring, widest) < ample
    return not sum_over_ranks(torch.tensor([float(not is_small)]), placement).item()


def _estimated_bytes(
    engine: TrainingEngine, task: TrainingTask, scoring: Scoring, widest: Sequence[MicroBatchShape]
) -> int:
    """Return an upper bound of what a step or a validation allocates on one rank, in bytes."""
    recipe = task.recipe
    assert isinstance(recipe.model, LayersConfig)  # true for every built-in network
    batches = [(task.data.synthetic(shape, task.manifest.special_ids), 0) for shape in widest]
    # A search for outputs adds at most a token per column of the table to each row.
    batches += [(scoring.batches[n], scoring.columns) for n in widest_heldout(scoring.batches)]
    vocabulary = max(tokenizer.vocabulary_size for tokenizer in task.tokenizers.values())
    activations = 0
    for batch, outputs in batches:
        padded = task.sizes(batch)
        assert padded is not None  # every built-in task has sizes
        rows, sizes = len(batch.pair_ids), padded.computed
        sizes = sizes._replace(
            target_tokens=sizes.target_tokens + rows * outputs,
            cross_pairs=sizes.cross_pairs + rows * outputs**2 + outputs * sizes.tokens,
        )
        activations = max(activations, activation_bytes(recipe.model, sizes, vocabulary))
    passes = 2 if recipe.trainer.r_drop else 1
    weights = sum(map(math.prod, engine.parameter_shapes.values()))
    return passes * activations + _BYTES_PER_WEIGHT_ESTIMATED * weights


def preflight(
    engine: TrainingEngine, widest: Sequence[MicroBatchShape], budget: int, synthetic: Synthetic
) -> None:
    """Try forward and backward with given shapes of micro-batches; a collective.

    Args:
        engine: the engine of this rank.
        widest: the shapes to try.
        budget: the budget of tokens per micro-batch, for which these shapes are the widest.
        synthetic: makes a batch of a given shape.

    Raises:
        MemoryPreflightError: a rank has too little memory.
    """
    placement = engine.placement
    memory = memory_bytes(placement)
    most_resident = host_memory.resident_bytes() + memory
    sum_over_ranks(torch.zeros(1), placement)  # barrier: no rank allocates before all have measured
    with _raise_with_rank(engine, "all weights", memory), engine.inference_model() as model:
        rank = _SingleRankStep(
            model.train(),
            engine.loss,
            synthetic,
            placement,
            most_resident,
            keeps_gradients=engine.zero_stage < 3,
        )
        finding = rank.finding(widest, budget)
    del model, rank
    table = np.zeros((placement.world_size, 5))
    table[placement.rank] = *finding, memory
    table = sum_over_ranks(torch.from_numpy(table), placement).numpy()
    if table[:, _FAILED].any():
        raise MemoryPreflightError(_shortage(table, widest, budget, engine))
    if table[:, _AMPLE].all():
        return
    for shape in widest:
        with _raise_with_rank(engine, f"{shape} in a step", memory):
            _as_in_a_step(engine, synthetic, shape)


@dataclass(frozen=True, eq=False)
class _SingleRankStep:
    """Trials of forward and backward on one rank, with unpartitioned weights.

    Attributes:
        model: the network with all weights, in training mode.
        loss: the loss, which is passed to the network's forward pass as its last argument.
        synthetic: makes a batch of a given shape.
        placement: this rank and its device.
        most_resident: the most bytes that this process may use on the host.
        keeps_gradients: whether a step holds the gradients of all weights at once; ZeRO-3 does not.
    """

    model: nn.Module
    loss: object
    synthetic: Synthetic
    placement: Placement
    most_resident: int
    keeps_gradients: bool

    def __post_init__(self) -> None:
        """Register hooks that drop gradients, unless a step keeps all gradients."""
        if not self.keeps_gradients:
            for parameter in _trained(self.model):
                parameter.register_post_accumulate_grad_hook(_drop_gradient)

    def finding(
        self, widest: Sequence[MicroBatchShape], budget: int
    ) -> tuple[bool, int, int, bool]:
        """Try the shapes in order, up to the first that does not fit.

        Returns:
            Whether a shape does not fit, the index of that shape, a budget that fits, and whether
            all shapes need only a small share of the memory. The index and the budget are 0 if all
            shapes fit; the budget is also 0 if no smaller budget fits.
        """
        if self.placement.device == "cpu" and all(map(self._has_ample_memory, widest)):
            return False, 0, 0, True
        for number, shape in enumerate(widest):
            if not self._fits(shape):
                return True, number, self._fitting_budget(widest, budget), False
        return False, 0, 0, False

    def _has_ample_memory(self, shape: MicroBatchShape) -> bool:
        """Return whether a small part of the rows shows that there is room for all of them."""
        rows = max(1, shape.rows // TINY_DIVISOR)
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        return has_ample_memory(
            lambda: self._run(replace(shape, rows=rows)),
            shape.rows / rows,
            self.placement,
            _BYTES_PER_WEIGHT * weights,
        )

    def _fitting_budget(self, widest: Sequence[MicroBatchShape], budget: int) -> int:
        """Return the largest of budget / 2, budget / 4, … with which all shapes fit, or 0."""
        halvings = 1
        while all(shape.rows >> halvings for shape in widest):
            if all(self._fits(replace(s, rows=s.rows >> halvings)) for s in widest):
                return budget >> halvings
            halvings += 1
        return 0

    def _fits(self, shape: MicroBatchShape) -> bool:
        run = self._run if self.placement.device == "cuda" else self._run_within_host
        return fits(lambda: run(shape), self.placement)

    def _run_within_host(self, shape: MicroBatchShape) -> None:
        """Run a quarter and a half of the rows first, to predict the memory that all rows need.

        Linux kills a process that uses too much host memory, so there would be no error to catch.
        """
        peaks: list[int] = []
        for divisor in (4, 2, 1):
            if divisor == 1 and peaks[1] + 2 * (peaks[1] - peaks[0]) > self.most_resident:
                raise MemoryError
            host_memory.restart_peak()
            self._run(replace(shape, rows=max(1, shape.rows // divisor)))
            peaks.append(host_memory.peak_resident_bytes())
        if peaks[-1] > self.most_resident:
            raise MemoryError

    def _run(self, shape: MicroBatchShape) -> None:
        model = self.model
        sums = model(*self.synthetic(shape).inputs, self.loss)
        sum_names(sums, model)  # raises an error if the sums have no names
        objective = sums[0]
        if self.keeps_gradients:
            torch.autograd.grad(objective, _trained(model))
        else:
            objective.backward()


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _as_in_a_step(engine: TrainingEngine, synthetic: Synthetic, shape: MicroBatchShape) -> None:
    """Run a step of up to two passes, so that the second pass runs while gradients are kept."""
    passes = min(engine.slots_per_rank, 2)
    for number in range(passes):
        batch = synthetic(shape)
        engine.forward_backward(
            batch,
            units_global=batch.positions,
            is_accumulation_boundary=number == passes - 1,
            is_dummy=False,
        )
    engine.discard_gradients()


@contextlib.contextmanager
def _raise_with_rank(engine: TrainingEngine, what: str, memory: int) -> Iterator[None]:
    """Convert an out-of-memory error that this rank cannot report to the other ranks.

    The new error names the rank and the cause.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryPreflightError(
            f"Rank {engine.placement.rank} cannot fit {what} into memory; "
            f"{memory_text(memory, engine.placement)}. {_remedy(engine)}. "
            f"The error was: {str(error).splitlines()[0]}"
        ) from error


def _shortage(
    table: np.ndarray, widest: Sequence[MicroBatchShape], budget: int, engine: TrainingEngine
) -> str:
    """Return the message that all ranks raise; each row of the table is a rank's finding."""
    ranks = np.flatnonzero(table[:, _FAILED]).tolist()
    number, memory = table[ranks[0], [_SHAPE, _MEMORY]].astype(np.int64).tolist()
    fitting = int(table[ranks, _FITTING].min())
    names = f"Rank {ranks[0]}" if len(ranks) == 1 else f"Ranks {', '.join(map(str, ranks))}"
    smaller = (
        f"batching.max_tokens_per_micro_batch={fitting} would fit too, but requires a new run"
        if fitting
        else "no smaller budget of tokens fits (half, a quarter, … down to one pair were tried)"
    )
    return (
        f"{names} of {engine.placement.world_size} cannot fit forward and backward of a "
        f"micro-batch of {widest[number]}, which batching.max_tokens_per_micro_batch = {budget} "
        f"allows, into memory; {memory_text(memory, engine.placement)}. "
        f"{_remedy(engine)}; {smaller}"
    )


def _remedy(engine: TrainingEngine) -> str:
    stage = engine.zero_stage
    ways = [f"raise engine.zero_stage above {stage}"] if stage < 3 else []
    if stage > 0:  # the state is partitioned over the ranks
        ways.append("use more ranks (cluster.ranks)")
    if not engine.checkpoints_activations:
        ways.append("set engine.activation_checkpointing=true")
    return f"To free memory, {' or '.join(ways)}; this does not change the run"
