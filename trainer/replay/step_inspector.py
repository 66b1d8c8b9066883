"""Step inspector of one rank: observe repeated steps without changing a bit of them.

    data of the step ──extra forward pass──▶ loss of each example, ranges of activations
    each pass's gradients ──summed──▶ the step's gradient of each parameter
    state after the step ──compared──▶ the run's checkpoint of that step

The additional forward pass keeps no gradients. It runs before the passes of the step, with the same
weights and, for each micro-batch, the same dropout. So the step's loss is the mean of the reported
losses, except for label smoothing. Afterwards, the loop seeds dropout for the passes of the step as
usual.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from torch import nn

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.reader import CheckpointReader
from run_store.errors import CheckpointError
from trainer.job.rank_job import RankContext, ReplayOptions
from trainer.process.distributed import sum_over_ranks
from trainer.process.placement import Placement
from trainer.registries.callbacks import StepObserver
from trainer.replay.rank_reports import (
    RankActivationReport,
    RankExampleReport,
    RankStateReport,
    RankStepReport,
    write_rank_report,
)
from trainer.replay.replay_report import finite
from trainer.state.restore import TrainingState
from trainer.tasks.randomness import seed_torch
from trainer.tasks.task import TrainingTask
from trainer.zero import fragments

Steps = Callable[[Cursor], Iterator[RankStep]]


class StepInspector(StepObserver):
    """Observer of the steps of one rank that writes a report of each requested step."""

    def __init__(
        self, order: ReplayOptions, context: RankContext, state: TrainingState, task: TrainingTask
    ) -> None:
        self._order = order
        self._context = context
        self._placement = context.placement
        self._state = state
        self._task = task
        self._step = 0  # the step that is being inspected, or 0
        self._examples: list[RankExampleReport] = []
        self._activations: dict[str, RankActivationReport | None] = {}

    def observed_stream(self, steps: Steps) -> Steps:
        """Wrap a stream of data, so that a step's data is inspected before the loop gets it."""

        def opened(cursor: Cursor) -> Iterator[RankStep]:
            for data in steps(cursor):
                if self._step:
                    self._inspect(data)
                yield data

        return opened

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Return a context manager that observes the step in its body; a collective."""
        looked_at = self._order.looked_at
        if looked_at is not None and step in looked_at:
            with self._inspecting(step):
                yield
        else:
            yield
        if checkpoint := self._order.checkpoints.get(step):
            seen = self._compared_with(Checkpoint(checkpoint))
            write_rank_report(self._order.state_file(step, self._placement.rank), seen)

    @contextmanager
    def _inspecting(self, step: int) -> Iterator[None]:
        engine = self._state.engine
        gradients = GradientSums(engine.slots_per_rank)
        self._step = step
        try:
            with engine.observe_gradients(gradients.add):
                yield
        finally:
            self._step = 0
        seen = RankStepReport(
            examples=self._examples,
            activations=self._activations,
            gradient_squares=gradients.squares(engine.parameter_shapes, self._placement),
        )
        write_rank_report(self._order.inspection_file(step, self._placement.rank), seen)

    def _inspect(self, data: RankStep) -> None:
        """Run the rank's micro-batches forward, with the weights before the step."""
        self._examples = []
        seed, device = self._context.recipe.seed, self._placement.torch_device
        with self._state.engine.inference_model() as network:
            network.train()  # the training mode turns dropout on
            with activations_of(network) as self._activations:
                for slot, batch in zip(data.slots, data.micro_batches, strict=True):
                    seed_torch(seed, "dropout", self._step, slot)
                    losses = self._task.example_losses(network, batch, device)
                    self._examples += self._rank_examples(slot, batch, losses)

    def _rank_examples(
        self, slot: int, batch: MicroBatch, losses: np.ndarray
    ) -> Iterator[RankExampleReport]:
        texts = self._task.example_texts(batch)
        tokens = self._task.targets(batch)
        for index, example in enumerate(batch.pair_ids.tolist()):
            yield RankExampleReport(
                slot=slot,
                example=example,
                start=None if batch.starts is None else int(batch.starts[index]),
                texts={name: lines[index] for name, lines in texts.items()},
                tokens=int(tokens[index]),
                loss=finite(float(losses[index])),
            )

    def _compared_with(self, checkpoint: Checkpoint) -> RankStateReport:
        """Compare the state that this rank owns with a checkpoint, element by element."""
        state, tensors, different = self._state, [], dict[str, float | None]()
        averages = state.ema.fragments() if state.ema else ()
        try:
            reader = CheckpointReader(checkpoint)
            for owned in chain(fragments.owned_fragments(state.engine), averages):
                name = f"{owned.kind}:{owned.parameter}"
                theirs = reader.read(owned.kind, owned.parameter, owned.start, owned.stop)
                ours = owned.tensor.detach().cpu()
                tensors.append(name)
                if not torch.equal(ours, theirs):
                    different[name] = finite(float((ours - theirs).abs().max()))
        except (CheckpointError, OSError) as error:  # for example, a checkpoint was removed
            return RankStateReport(tensors=[], different={}, problem=str(error))
        return RankStateReport(tensors=tensors, different=different)


class GradientSums:
    """Sums of each parameter's gradients over the passes of a step, in fp64.

    The order of the sums depends on the number of ranks, but in fp64 it changes almost nothing. The
    sums restart if the step's passes are repeated because a gradient did not fit its grid.
    """

    def __init__(self, passes: int) -> None:
        """Start with empty sums.

        Args:
            passes: the number of this rank's passes in a step, dummies included.
        """
        self._passes = passes
        self._shown: Counter[str] = Counter()
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, parameter: str, gradient: torch.Tensor) -> None:
        if self._shown[parameter] % self._passes == 0:
            self._sums[parameter] = gradient.detach().double()
        else:
            self._sums[parameter] += gradient
        self._shown[parameter] += 1

    def squares(self, parameters: Iterable[str], placement: Placement) -> dict[str, float | None]:
        """Sum the gradients over all ranks and return their squared norms; a collective.

        Args:
            parameters: the names, in the same order on all ranks.
            placement: this rank and the number of ranks.

        Returns:
            The squared norms by parameter; None for norms that are not finite. Empty on all ranks
            except 0.
        """
        squares = {
            name: finite(_square(sum_over_ranks(self._sums[name].cpu(), placement)))
            for name in parameters
            if name in self._sums
        }
        return {} if placement.rank else squares


def _square(values: torch.Tensor) -> float:
    return float(values.double().square().sum())


@contextmanager
def activations_of(network: nn.Module) -> Iterator[dict[str, RankActivationReport | None]]:
    """Return a context manager that collects the range of each module's outputs, by module name."""
    seen: dict[str, RankActivationReport | None] = {}

    def look(name: str, output: object) -> None:
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return
        low, high = (float(value) for value in output.aminmax())
        if not (np.isfinite(low) and np.isfinite(high)):
            seen[name] = None
            return
        total = float(output.sum(dtype=torch.float64))
        now = RankActivationReport(minimum=low, maximum=high, total=total, count=output.numel())
        before = seen.get(name, now)
        seen[name] = before and (now if before is now else before.plus(now))

    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: look(name, output))
        for name, module in network.named_modules()
        if name
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        in_order = {name: seen[name] for name, _ in network.named_modules() if name in seen}
        seen.clear()
        seen.update(in_order)
