"""Hold the data of a run's picture.

::

    the supervisor's lines, in memory (`transloom train`)  ─┐
                                                            ├─▶ RunPicture ─▶ blocks ─▶ terminal
    the run's folder (`transloom watch`)                   ─┘

Both sources call the same methods, so both commands show the same picture. `picture_blocks` draws
it.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from trainer.checkpoints.checkpoint_status import CheckpointStatus
from trainer.errors import TrainerError
from trainer.record.curve_points import Points
from trainer.record.metrics_lines import Line, TrainLine, ValidationLine
from trainer.record.record_end import RecordEnd, read_record_end
from trainer.record.run_status import RECORD_BYTES_IN_LIST
from trainer.record.run_status_model import DEFAULT_FORM, LossForm, RunStatus
from trainer.runs.folder import RunFolder
from trainer.runs.log import LogEntry
from trainer.runs.vitals import SupervisorState, Vitals
from trainer.scores import BestScore, keep_best
from transloom.observe.curves.curves import read_curves

NOTICES_KEPT = 12
CHECKPOINTS_SHOWN = 6
MOST_POINTS = 512  # several for each character of the widest curve


@dataclass(frozen=True)
class JobPicture:
    """Status of the job that trains a run.

    Attributes:
        state: the state in lower case.
        is_under_way: True if the job may still train the run.
        waits_for: the resources that the job waits for; None if it does not wait.
        restarts: one text for each restart, oldest first.
    """

    id: str
    state: str
    is_under_way: bool
    waits_for: str | None = None
    message: str | None = None
    restarts: tuple[str, ...] = ()


def state_with_job(standing: RunStatus, job: JobPicture | None) -> str:
    """Return the state of a run, or its job's state while the run waits for the job."""
    if standing.state != "training" and job and job.is_under_way:
        return job.state
    return standing.state


@dataclass
class RunPicture:
    """Data of a run that the run's picture in a terminal shows.

    Attributes:
        title: text that names the run, shown in the first row.
        state: see `trainer.record.run_status`.
        reason: reason for the state; None if there is none to show.
        owner: description of the process that trains the run.
        loss_form: unit of the loss, and whether it includes label smoothing.
        step: the last known step, from the metrics file or a checkpoint.
        record: the last lines of the metrics file.
        drawn: points of the curves; `points` adds those of the lines in `new_lines`.
        scores: the values of each measure by step, by the measure's name.
        best: the best value of each measure, by the measure's name.
        vitals: the last known vitals; None if there are none.
        vitals_are_current: True if the vitals describe live processes.
        nodes: the number of ranks on each node, by the node's name.
        problems: messages about parts of the run that cannot be read.
    """

    title: str
    max_steps: int | None = None
    state: str = "training"
    reason: str | None = None
    owner: str = ""
    step: int = 0
    loss_form: LossForm = DEFAULT_FORM
    record: RecordEnd = field(default_factory=RecordEnd)
    drawn: Points = field(default_factory=Points.none)
    new_lines: list[TrainLine] = field(default_factory=list)
    scores: dict[str, dict[int, float | None]] = field(default_factory=dict)
    best: dict[str, BestScore] = field(default_factory=dict)
    vitals: Vitals | None = None
    vitals_are_current: bool = False
    nodes: dict[str, int] = field(default_factory=dict)
    checkpoints: list[CheckpointStatus] = field(default_factory=list)
    notices: deque[LogEntry] = field(default_factory=lambda: deque(maxlen=NOTICES_KEPT))
    job: JobPicture | None = None
    problems: list[str] = field(default_factory=list)

    def line(self, line: Line) -> None:
        """Add a line of the metrics file."""
        self.record = self.record.after(line)
        self.step = max(self.step, self.record.step)
        if isinstance(line, TrainLine):
            self.new_lines.append(line)
        elif isinstance(line, ValidationLine):
            self.take_scores(line)

    def take_scores(self, line: ValidationLine) -> None:
        """Add the scores of a validation."""
        keep_best(self.best, line.scores, line.step)
        for name, score in line.scores.items():
            self.scores.setdefault(name, {})[line.step] = score.value

    def points(self) -> Points:
        """Return the points of the curves, of which a long run has at most `2 * MOST_POINTS`."""
        self.drawn = Points.joined([self.drawn, Points.of_lines(self.new_lines)])
        self.new_lines = []
        if len(self.drawn) > 2 * MOST_POINTS:
            self.drawn = self.drawn.thinned(MOST_POINTS)
        return self.drawn

    def columns(self, width: int) -> dict[str, list[Any]]:
        """Return the curves' values by column, merged to `width` equal parts of the steps."""
        points = self.points()
        if len(points) > width:
            first, last = points.steps[0], points.steps[-1]
            points = points.merged((points.steps - first) * width // (last - first + 1))
        return points.columns()

    def forget_curves(self) -> None:
        """Discard the curves, because another file has replaced the metrics file."""
        self.drawn, self.new_lines, self.scores, self.best = Points.none(), [], {}, {}
        self.record, self.step = RecordEnd(), 0

    @property
    def newest(self) -> ValidationLine | None:
        """The newest validation, with its samples; None if there is none."""
        return self.record.validations[-1] if self.record.validations else None

    @property
    def supervisor_state(self) -> SupervisorState | None:
        """State of the supervisor; None if it is unknown, or if no process trains the run."""
        return self.vitals.supervisor_state if self.vitals and self.vitals_are_current else None

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the last step at recent speed; None unless the run is training."""
        if self.state != "training":
            return None
        return replace(self.record, step=self.step).seconds_left(self.max_steps)


def take_history(picture: RunPicture, run: RunFolder) -> list[str]:
    """Fill a picture with the thinned curves and the validations of a run's metrics file.

    Returns:
        Descriptions of the problems in the metrics file and the curve file.
    """
    try:
        curves = read_curves(run, MOST_POINTS)
        end = read_record_end(run.metrics, RECORD_BYTES_IN_LIST)
    except (OSError, TrainerError) as error:
        return [f"{run.metrics} cannot be read: {error}"]
    picture.drawn = curves.points
    for line in (validations := curves.lines.validations):
        picture.take_scores(line)
    picture.record = replace(end, validations=tuple(validations[-1:]))
    picture.step = max(picture.step, end.step)
    return [curves.problem] if curves.problem else []
