"""What there is to see of a run: filled by whoever hears of it, drawn by `picture_blocks`.

::

    the supervisor's lines, in memory (`transloom train`)  ─┐
                                                            ├─▶ RunPicture ─▶ blocks ─▶ terminal
    the run's folder (`transloom watch`)                   ─┘

Both feeds call the same methods, so both show the same.
"""

from collections import deque
from dataclasses import dataclass, field

from trainer.checkpoints.condition import CheckpointCondition
from trainer.record.record_end import RECENT_STEPS, RecordEnd
from trainer.record.records import Line, SkippedLine, TrainLine, ValidationLine
from trainer.runs.log import LogEntry
from trainer.runs.vitals import Vitals
from trainer.scores import Score
from transloom.observe.terminal.sparkline import Series

# The fields with a series of each.
CURVES = (
    *("loss", "nll", "tokens_per_second", "tflops_per_second"),
    *("grad_norm", "learning_rate", "scores"),
)
NOTICES_KEPT = 12
CHECKPOINTS_SHOWN = 6


@dataclass(frozen=True)
class JobPicture:
    """The job that a run is trained by.

    Attributes:
        state: in words.
        is_under_way: whether it may still train.
        restarts: one text for each time it was started again, oldest first.
    """

    id: str
    state: str
    is_under_way: bool
    waits_for: str | None = None
    message: str | None = None
    restarts: tuple[str, ...] = ()


@dataclass
class RunPicture:
    """A run at a moment.

    Attributes:
        title: what is trained, and how.
        state: as `trainer.record.standing` has it.
        reason: why it has that state.
        owner: who trains it, in words.
        smooths_labels: whether the loss includes label smoothing, which the NLL never does.
        recent: the last applied steps of one start of the ranks.
        scores: the values of each measure over the run.
        best: the best value of each measure, and its step.
        newest: the newest validation with its samples.
        vitals: None if there are none.
        vitals_are_current: whether they tell of processes that live.
        problems: what of the run cannot be read.
    """

    title: str
    max_steps: int | None = None
    state: str = "training"
    reason: str | None = None
    owner: str = ""
    step: int = 0
    smooths_labels: bool = False
    loss: Series = field(default_factory=Series)
    nll: Series = field(default_factory=Series)
    tokens_per_second: Series = field(default_factory=Series)
    tflops_per_second: Series = field(default_factory=Series)
    grad_norm: Series = field(default_factory=lambda: Series(keeps_spikes=True))
    learning_rate: Series = field(default_factory=Series)
    scores: dict[str, Series] = field(default_factory=dict)
    best: dict[str, tuple[Score, int]] = field(default_factory=dict)
    recent: deque[TrainLine] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))
    skipped_steps: int = 0
    newest: ValidationLine | None = None
    vitals: Vitals | None = None
    vitals_are_current: bool = False
    nodes: dict[str, int] = field(default_factory=dict)
    checkpoints: list[CheckpointCondition] = field(default_factory=list)
    notices: deque[LogEntry] = field(default_factory=lambda: deque(maxlen=NOTICES_KEPT))
    job: JobPicture | None = None
    problems: list[str] = field(default_factory=list)

    def line(self, line: Line) -> None:
        """Take a line of the record."""
        if isinstance(line, TrainLine):
            self._train_line(line)
        elif isinstance(line, SkippedLine):
            self.step = max(self.step, line.step)
            self.skipped_steps = max(self.skipped_steps, line.skipped_steps)
        elif isinstance(line, ValidationLine):
            for name, score in line.scores.items():
                self.score(line.step, name, score)
            if self.newest is None or line.step >= self.newest.step:
                self.newest = line

    def score(self, step: int, name: str, score: Score) -> None:
        """Take a measure of the validation of a step."""
        self.scores.setdefault(name, Series()).add(step, score.value)
        if score.is_better_than(self.best[name][0].value if name in self.best else None):
            self.best[name] = score, step

    def forget_curves(self) -> None:
        """The record is another one than before."""
        empty = RunPicture(self.title)
        for name in CURVES:
            setattr(self, name, getattr(empty, name))
        self.best, self.recent, self.newest = empty.best, empty.recent, None
        self.step = self.skipped_steps = 0

    @property
    def last(self) -> TrainLine | None:
        """The newest applied step."""
        return self.recent[-1] if self.recent else None

    @property
    def speed(self) -> RecordEnd:
        """Seconds of a step and tokens per second, of recent steps."""
        return RecordEnd(step=self.step, recent=tuple(self.recent))

    @property
    def seconds_left(self) -> float | None:
        """Until the last step at the speed of recent ones, while the run is trained."""
        rate = self.speed.seconds_per_step
        if rate is None or self.max_steps is None or self.state != "training":
            return None
        return max(0, self.max_steps - self.step) * rate

    def _train_line(self, line: TrainLine) -> None:
        if self.recent and line.restarts != self.recent[-1].restarts:
            self.recent.clear()  # the time between two starts says nothing of the speed
        self.recent.append(line)
        self.step = max(self.step, line.step)
        self.loss.add(line.step, line.loss)
        self.nll.add(line.step, line.nll)
        self.tokens_per_second.add(line.step, line.target_tokens_per_second)
        if line.tflops_per_second is not None:
            self.tflops_per_second.add(line.step, line.tflops_per_second)
        self.grad_norm.add(line.step, line.grad_norm)
        self.learning_rate.add(line.step, line.learning_rate)
