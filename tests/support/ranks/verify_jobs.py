"""Jobs for a `RankPool` that train with checks of slots while bits flip on one rank."""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from data_pipeline.batching.plan import Cursor, slots_of_rank
from data_pipeline.batching.stream import RankStep
from model.losses.loss import CrossEntropy
from run_store.record.corruption import SilentCorruptionError
from support.ranks.engine_jobs import SMOOTHING, Shape, full_weights, make_model, micro_batch
from support.ranks.loop_parts import Recorder, Saver, Story, Supervision, Task, Validator, recipe
from support.ranks.rank_jobs import make_job
from trainer.assembly.callbacks import build_guards
from trainer.config import EngineConfig
from trainer.errors import UnequalKernelsError
from trainer.job.rank_job import RankContext
from trainer.process.placement import Placement
from trainer.registries.optimizers import OptimizerConfig
from trainer.state.kernel_fingerprint import require_equal_kernels
from trainer.state.progress import Progress
from trainer.state.restore import TrainingState
from trainer.training.callbacks import Callbacks
from trainer.training.loop import Trainer
from trainer.training.slot_checks import SlotChecks
from trainer.zero.engine import PassResult, TrainingEngine

Kind = Literal["weight", "activation", "gradient"]
KINDS: tuple[Kind, ...] = ("weight", "activation", "gradient")


@dataclass(frozen=True)
class Setting:
    """Training of a test.

    Attributes:
        slots: number of slots of a step; if it is not divisible by the ranks, there are dummies.
        every: `engine.verify_every_steps`.
        guard: whether a spike guard checks each step.
        node_names: names of the ranks' nodes.
    """

    shape: Shape
    slots: int
    every: int = 1
    guard: bool = False
    node_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flip:
    """Bit that flips on one rank.

    Attributes:
        sticks: True to flip it in every pass of a step and its repetition, False for one pass.
        seed: determines module, element, bit and pass.
    """

    rank: int
    kind: Kind
    sticks: bool
    seed: int


class Flipper:
    """Flipper of bits in this rank's network, which autograd does not notice, as in real memory."""

    def __init__(self, model: nn.Module) -> None:
        """Attach to a model before an engine does, so that the engine sees flipped gradients."""
        self._model = model
        self._parameters = list(model.parameters())
        self._modules = [m for m in model.modules() if any(True for _ in m.parameters(False))]
        self._flip: Flip | None = None
        self._undo: Callable[[], None] | None = None
        self.passes = 0  # passes of the current step so far
        for number, parameter in enumerate(self._parameters):
            parameter.register_hook(lambda g, number=number: self._on_gradient(number, g))

    def attach(self) -> None:
        """Attach to the forward passes, after ZeRO-3's hooks, which gather the weights."""
        for module in self._modules:
            module.register_forward_pre_hook(self._before)
            module.register_forward_hook(self._after)

    def arm(self, flip: Flip | None, passes: int) -> None:
        """Flip a bit in the next passes.

        passes: number of passes of the step.
        """
        self._flip, self.passes = flip, 0
        if flip:
            random = np.random.default_rng(flip.seed)
            self._module = self._modules[random.integers(len(self._modules))]
            self._parameter = int(random.integers(len(self._parameters)))
            self._pass = int(random.integers(passes))
            self._element, self._bit = random.random(), random.random()

    def after_pass(self) -> None:
        self.passes += 1
        if self._undo:
            self._undo()
        self._undo = None

    @property
    def _is_on(self) -> bool:
        return self._flip is not None and (self._flip.sticks or self.passes == self._pass)

    def _strike(self, tensor: torch.Tensor) -> Callable[[], None]:
        width = 8 * tensor.element_size()
        integers = tensor.data.view({16: torch.int16, 32: torch.int32}[width]).view(-1)
        index = int(self._element * len(integers))
        bit = int(self._bit * width)
        mask = -(2**bit) if bit == width - 1 else 2**bit

        def flip() -> None:
            integers[index : index + 1] ^= mask

        flip()
        return flip

    def _before(self, module: nn.Module, inputs: object) -> None:
        if self._is_on and self._flip.kind == "weight" and module is self._module:
            weight = next(module.parameters(recurse=False))
            # the bit stays flipped for the backward pass, and with `sticks` in later passes
            if self._undo is None:
                self._undo = self._strike(weight)

    def _after(self, module: nn.Module, inputs: object, output: object) -> None:
        is_hit = self._is_on and self._flip.kind == "activation" and module is self._module
        if is_hit and isinstance(output, torch.Tensor) and output.is_floating_point():
            self._strike(output)

    def _on_gradient(self, number: int, gradient: torch.Tensor) -> torch.Tensor | None:
        if self._is_on and self._flip.kind == "gradient" and number == self._parameter:
            gradient = gradient.clone(memory_format=torch.contiguous_format)
            self._strike(gradient)
            return gradient
        return None


class CheckedRank:
    """Rank with a real loop and a real engine; all other parts are simulated."""

    def __init__(self, placement: Placement, setting: Setting, steps: int = 1) -> None:
        placement = replace(placement, node_ids=setting.node_names, node_names=setting.node_names)
        self.setting, self.placement, self.story = setting, placement, Story()
        # loss units of steps where these differ from the number of target tokens
        self.units: dict[int, float] = {}
        model = make_model()
        self.flipper = Flipper(model)
        given = [model]
        training = recipe(
            max_steps=steps,
            validate_every_steps=10**6,
            stop_after_skipped_steps=10**6,
            spike_guard={"window": 5, "minimum_steps": 2} if setting.guard else None,
        )
        numerics = asdict(setting.shape)
        if setting.every and numerics["numerics"] == "exact":
            numerics["verify_every_steps"] = setting.every
        training = training.model_copy(
            update={
                "engine": EngineConfig(**numerics),
                "batching": training.batching.model_copy(
                    update={"micro_batches_per_step": setting.slots}
                ),
            }
        )
        self.engine = TrainingEngine(
            lambda: given.pop() if given else make_model(),
            engine=training.engine,
            optimizer=OptimizerConfig(weight_decay=0.01),
            gradient_clipping=0.0,
            loss=CrossEntropy(SMOOTHING),
            micro_batches_per_step=setting.slots,
            placement=placement,
        )
        self.flipper.attach()
        self.checks = SlotChecks(
            setting.every,
            slots=setting.slots,
            parameters=self.engine.trained,
            placement=placement,
        )
        self.digests: dict[int, torch.Tensor] = {}
        self.passes = 0
        self._log_passes()
        state = TrainingState(Progress(), self.engine, None)
        run = Path("/nowhere")
        self.trainer = Trainer(
            RankContext(make_job(training, run), placement, Supervision(self.story)),
            state,
            Task(),
            steps=self.stream,
            validator=Validator(self.story),
            saver=Saver(self.story, state.progress),
            recorder=Recorder(self.story),
            callbacks=Callbacks(guards=build_guards(training, state.progress)),
            resources=ExitStack(),
            checks=self.checks,
        )

    def stream(self, cursor: Cursor) -> Iterator[RankStep]:
        slots, placement = self.setting.slots, self.placement
        own = slots_of_rank(placement.rank, placement.world_size, slots)
        while True:
            step = cursor.offset // slots + 1
            after = Cursor(cursor.epoch, cursor.window, cursor.offset + slots)
            units = tuple(micro_batch(step, slot).tokens("tgt") for slot in range(slots))

            def request(slot: int, step: int = step) -> Callable[[], Any]:
                return lambda: micro_batch(step, slot)

            if step in self.units:
                units = (self.units[step], *(0 for _ in units[1:]))
            parts = [micro_batch(step, slot) for slot in own]
            yield RankStep(own, parts, units, cursor, after, request)
            cursor = after

    def data(self, step: int) -> RankStep:
        return next(self.stream(Cursor(offset=(step - 1) * self.setting.slots)))

    def _log_passes(self) -> None:
        run = self.engine.forward_backward

        def logged(batch: Any, **how: Any) -> PassResult:
            result = run(batch, **how)
            self.flipper.after_pass()
            self.passes += 1
            if result.digests is not None:
                self.digests[self.passes] = result.digests
            return result

        self.engine.forward_backward = logged  # type: ignore[method-assign]

    def try_step(self, step: int, flip: Flip | None) -> tuple[bool, Any]:
        """Compute a step and discard it.

        Returns:
            True if a digest of this rank has changed, and the findings of the check.
        """
        self.passes, self.digests = 0, {}
        self.flipper.arm(None, 1)
        self.trainer._accumulate(step, self.data(step), 0.0)
        self.engine.discard_gradients()
        passes, clean = self.passes, self.digests
        self.passes, self.digests = 0, {}
        self.flipper.arm(flip if flip and flip.rank == self.placement.rank else None, passes)
        finding = None
        try:
            self.trainer._accumulate(step, self.data(step), 0.0)
        except SilentCorruptionError as error:
            finding = error.finding
        self.engine.discard_gradients()
        self.flipper.arm(None, 1)
        changed = any(not torch.equal(self.digests[key], clean[key]) for key in clean)
        return changed, finding


def try_flips(placement: Placement, setting: Setting, flips: list[Flip]) -> list[Any]:
    """Return for each flip: True if it has changed a digest of this rank, and the findings."""
    rank = CheckedRank(placement, setting, steps=2)
    rank.trainer.train()  # a step that creates the grids
    found = [rank.try_step(3 + number, flip) for number, flip in enumerate(flips)]
    rank.engine.destroy()
    return found


def train_past_nan(placement: Placement, setting: Setting) -> list[str]:
    """Return the kinds of lines of a correct training whose third step is not finite."""
    rank = CheckedRank(placement, setting, steps=4)
    rank.units[3] = math.nan
    rank.trainer.train()
    rank.engine.destroy()
    return [line.kind for line in rank.story.lines]


def count_alarms(placement: Placement, setting: Setting, steps: int) -> tuple[int, int]:
    """Return the number of comparisons of a correct training, and its findings."""
    rank = CheckedRank(placement, setting, steps)
    comparisons = sum(len(rank.checks.of_step(step).checks) for step in range(1, steps + 1))
    alarms = 0
    try:
        rank.trainer.train()
    except SilentCorruptionError:
        alarms = 1
    rank.engine.destroy()
    return comparisons, alarms


def train(
    placement: Placement, setting: Setting, steps: int, flip: Flip | None = None, flips_in: int = 0
) -> dict[str, Any]:
    """Run a training in which a bit flips in one step."""
    rank = CheckedRank(placement, setting, steps)
    run = rank.trainer._passes.run

    def armed(step: int, data: RankStep) -> Any:
        hit = flip and step == flips_in and flip.rank == placement.rank
        rank.flipper.arm(flip if hit else None, rank.engine.slots_per_rank)
        return run(step, data)

    rank.trainer._passes.run = armed  # type: ignore[method-assign]
    finding, said = None, ""
    try:
        rank.trainer.train()
    except SilentCorruptionError as error:
        finding, said = error.finding, str(error)
    result = {
        "finding": finding,
        "said": said,
        "events": rank.story.of("corruption_found"),
        "losses": [line.loss for line in rank.story.lines if line.kind == "train"],
        "passes": rank.passes,
        "digested": len(rank.digests),
        "weights": _sha256(full_weights(rank.engine)),
    }
    rank.engine.destroy()
    return result


def compare_kernels(placement: Placement, variables: dict[int, dict[str, str]]) -> str:
    """Return the messages of ranks that have these environment variables."""
    engine = EngineConfig(numerics="exact", verify_every_steps=5)
    placement = replace(placement, node_names=tuple("abcd"[: placement.world_size]))
    import os

    mine = variables.get(placement.rank, {})
    os.environ.update(mine)
    try:
        require_equal_kernels(engine, placement)
    except UnequalKernelsError as error:
        return str(error)
    finally:
        for name in mine:
            del os.environ[name]
    return ""


def _sha256(weights: dict[str, torch.Tensor]) -> str:
    state = hashlib.sha256()
    for name in sorted(weights):
        state.update(name.encode() + weights[name].numpy().tobytes())
    return state.hexdigest()
