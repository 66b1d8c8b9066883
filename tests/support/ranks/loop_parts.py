"""Parts that `trainer.training.loop.Trainer` drives, without computation: they record calls.

All parts write into one list of events, which shows their order. A test sets the result of each
step in advance.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep
from data_pipeline.tasks.translation import TASK
from run_store.record.metrics_lines import Event, Line
from support.ranks.engine_jobs import SPECIAL, VOCABULARY, micro_batch
from support.ranks.rank_jobs import make_job
from support.recipes import tiny_values
from trainer.assembly.callbacks import build_guards
from trainer.job.rank_job import RankContext
from trainer.process.placement import Placement
from trainer.process.step_timer import StepTimer
from trainer.recipe import TrainingRecipe
from trainer.registries.callbacks import StepGuard, StepObserver
from trainer.state.progress import Progress
from trainer.state.restore import TrainingState
from trainer.tasks.batch import PairBatch, to_device
from trainer.tasks.task import ShownExample, ValidationResult
from trainer.tasks.translation import translation_scores
from trainer.training.callbacks import Callbacks
from trainer.training.loop import Trainer
from trainer.training.prober import Prober
from trainer.zero.engine import PassResult

SLOTS = 3
OTHER_RANKS_TOKENS = 1000  # target tokens of a step in the slots of other ranks
LOSSES = {"smoothed": 3.0, "nll": 2.0}  # losses of each slot
SAVE_SECONDS = 0.25  # time for which each checkpoint blocks the training


@dataclass
class Story:
    """Future events by step, and past events.

    Attributes:
        bad: steps in which a slot is not finite.
        overflows: steps in which all slots are finite, but not the sum of their gradients.
        norms: the gradient norm of steps; 1.5 for other steps.
        loss_factors: factor of each slot's loss, by step.
        refits: the result of the engine's grids after a step's first, second, … passes.
        wrong: the wrong sums of a step, after each of the passes that fit their grids.
        stops: steps at which a stop request arrives.
        scores: loss of the validation of a step; None if a stop request interrupts the validation.
        events: calls of the parts, in order.
        saved: the progress in each checkpoint, and True for the final one.
        lines: the record.
        notices: messages for the log.
    """

    bad: set[int] = field(default_factory=set)
    overflows: set[int] = field(default_factory=set)
    norms: dict[int, float] = field(default_factory=dict)
    loss_factors: dict[int, float] = field(default_factory=dict)
    refits: dict[int, list[list[str]]] = field(default_factory=dict)
    wrong: dict[int, list[list[str]]] = field(default_factory=dict)
    stops: set[int] = field(default_factory=set)
    scores: dict[int, float | None] = field(default_factory=dict)
    step: int = 0
    events: list[tuple[Any, ...]] = field(default_factory=list)
    passes: list[dict[str, Any]] = field(default_factory=list)
    saved: list[tuple[Progress, bool]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def of(self, *names: str) -> list[tuple[Any, ...]]:
        """Return the events with these names."""
        return [event for event in self.events if event[0] in names]


class Engine:
    width = 32
    sum_names = tuple(LOSSES)

    def __init__(self, story: Story, slots_per_rank: int) -> None:
        self.slots_per_rank = slots_per_rank
        self.timer = StepTimer(Placement())
        self._story = story
        self._fits: Counter[int] = Counter()

    def forward_backward(self, batch: Any, **how: Any) -> PassResult:
        step = self._story.step
        self._story.passes.append({"step": step, "seed": torch.initial_seed(), **how})
        finite = torch.tensor(step not in self._story.bad)
        smoothed, nll = LOSSES.values()
        smoothed *= self._story.loss_factors.get(step, 1.0)
        return PassResult(torch.tensor([smoothed, nll]), finite)

    def refit(self, amax: Any) -> list[str] | None:
        step = self._story.step
        said = self._story.refits.get(step, [])[self._fits[step] :]
        self._fits[step] += 1
        return said[0] if said else None

    def wrong_reductions(self) -> list[str]:
        wrong = self._story.wrong.get(self._story.step, [])
        return wrong.pop(0) if wrong else []

    def gradient_norm(self, amax: Any) -> float:
        norm = self._story.norms.get(self._story.step, 1.5)
        return float("inf") if self._story.step in self._story.overflows else norm

    def step(self, rate: float, amax: Any, norm: float | None) -> float:
        self._story.events.append(("applied", self._story.step, rate))
        return self.gradient_norm(amax) if norm is None else norm

    def discard_gradients(self) -> None:
        self._story.events.append(("discarded", self._story.step))

    @contextmanager
    def inference_model(self) -> Iterator[str]:
        yield "weights"


class Ema:
    def __init__(self, story: Story) -> None:
        self._story = story

    def update(self) -> None:
        self._story.events.append(("averaged", self._story.step))

    @contextmanager
    def inference_model(self) -> Iterator[str]:
        yield "average"


class Task:
    """Task with batches like those of translation."""

    def collate_for_training(self, micro_batch: MicroBatch, device: torch.device) -> PairBatch:
        return to_device(micro_batch, VOCABULARY, device)

    def dummy(self, device: torch.device) -> PairBatch:
        return self.collate_for_training(TASK.dummy(SPECIAL), device)


class Validator:
    def __init__(self, story: Story) -> None:
        self._story = story

    def run(self, model: Any, stop_requested: Callable[[], bool]) -> ValidationResult | None:
        step = self._story.step
        self._story.events.append(("validated", step, model))
        loss = self._story.scores.get(step, 10.0 + step)
        if loss is None:
            return None
        examples = [ShownExample("a", "c", "e"), ShownExample("b", "d", "f")]
        return ValidationResult(translation_scores(loss, 100.0 + step), examples)


class NotingProber(Prober):
    """Prober that records the weights of each frame instead of writing the frame."""

    def __init__(self, story: Story, run: Path, state: TrainingState) -> None:
        super().__init__(Task(), ["a sentence"], run, state, Supervision(story))  # type: ignore[arg-type]
        self._story = story

    def take(self, network: Any, step: int) -> None:
        self._story.events.append(("probed", step, network))


class Saver:
    def __init__(self, story: Story, progress: Progress) -> None:
        self._story = story
        self._progress = progress

    def save(self, *, final: bool) -> float:
        progress = self._progress
        self._story.events.append(("saved", progress.step))
        self._story.saved.append((replace(progress), final))
        return SAVE_SECONDS

    def finish(self) -> None:
        self._story.events.append(("written", self._story.step))


class Recorder:
    def __init__(self, story: Story) -> None:
        self._story = story
        self.last_step = 0

    def append(self, line: Line) -> None:
        if isinstance(line, Event):
            self._story.events.append((line.event, self._story.step, line.details))
        else:
            self._story.lines.append(line)

    def record_texts(self, step: int, texts: list[str]) -> None:
        self._story.events.append(("kept", step, texts))


class Supervision:
    def __init__(self, story: Story) -> None:
        self._story = story

    def progress(self, phase: str, step: int, where: str = "") -> None:
        self._story.step = step

    def notice(self, text: str) -> None:
        self._story.notices.append(text)

    def stop_requested(self) -> bool:
        return self._story.step in self._story.stops


def recipe(**trainer: Any) -> TrainingRecipe:
    """Return a recipe with steps of `SLOTS` micro-batches, and a checkpoint every second step."""
    values = tiny_values(Path("/dataset"), **trainer)
    values["batching"]["micro_batches_per_step"] = SLOTS
    values["checkpoints"]["every_steps"] = 2
    del values["cluster"]
    return TrainingRecipe.of(values)


def make_trainer(
    story: Story,
    training: TrainingRecipe,
    run: Path,
    progress: Progress | None = None,
    *,
    ema: bool = False,
    probes: bool = False,
    slots: range = range(SLOTS),
    observers: Sequence[StepObserver] = (),
    guards: Mapping[str, StepGuard] = MappingProxyType({}),
) -> Trainer:
    """Return a rank that computes these slots of each step, and a dummy unless these are all slots.

    It has the guards of the recipe and additional ones.
    """

    def steps(cursor: Cursor) -> Iterator[RankStep]:
        while True:
            after = Cursor(cursor.epoch, cursor.window, cursor.offset + SLOTS)
            micro_batches = [micro_batch(cursor.offset, slot) for slot in slots]
            units = [batch.tokens("tgt") for batch in micro_batches]
            units[0] += OTHER_RANKS_TOKENS
            yield RankStep(slots, micro_batches, tuple(units), cursor, after)
            cursor = after

    job = make_job(training, run)
    engine = Engine(story, min(SLOTS, len(slots) + 1))
    state = TrainingState(progress or Progress(), engine, Ema(story) if ema else None)
    probers = [NotingProber(story, run, state)] if probes else []
    callbacks = Callbacks(
        [*probers, *observers], {**build_guards(training, state.progress), **guards}
    )
    return Trainer(
        RankContext(job, Placement(), Supervision(story)),
        state,
        Task(),
        steps=steps,
        validator=Validator(story),
        saver=Saver(story, state.progress),
        recorder=Recorder(story),
        callbacks=callbacks,
        resources=ExitStack(),
    )
