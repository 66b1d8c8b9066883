"""State of a run: the content of `status.json`, and what all views of runs show.

The run's owner writes the file (`cluster.supervision.status_writer`); `run_store.record.run_status`
reads it.
"""

from typing import Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field

from foundation.file_model import Count, FileModel
from run_store.checkpoints.checkpoint_status import CheckpointRow
from run_store.lease import OwnerMetadata
from run_store.record.log import LogEntry
from run_store.record.metrics_lines import SlowRankState
from run_store.record.vitals import SupervisorState, Vitals
from run_store.scores import BestScore, Scores
from run_store.start import Start

State = Literal[
    "training", "waiting", "finished", "stopped", "failed", "abandoned", "damaged", "unknown"
]


class LossForm(NamedTuple):
    """Properties of a run on which titles and units of its facts depend.

    Attributes:
        unit: the unit over which the loss is averaged, such as "target token"; None if unknown.
        smooths_labels: whether the training loss includes label smoothing.
    """

    unit: str | None = None
    smooths_labels: bool = False


DEFAULT_FORM = LossForm()


class Owner(OwnerMetadata):
    """Process that trains the run, or the last process that trained it.

    Attributes:
        silent_seconds: the time since the last heartbeat, by this machine's clock. It is negative
            if the clock of the file server is ahead, and 0 in the file.
    """

    silent_seconds: float = 0.0


class RunStatus(FileModel):
    """Status of a run at a time and after a step."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    format_version: Literal[1] = 1
    """Version of the file's format."""
    name: str = ""
    """Name of the folder; not in the file."""
    path: str = ""
    """Path of the folder; not in the file."""
    time: float = 0.0
    """Time of writing, in seconds since the epoch by the owner's clock."""
    state: State = "unknown"
    """State of the run; as a metric, 1 for the current state and 0 for the others."""
    reason: str | None = None
    """Reason why the run finished, failed, was stopped or abandoned, or why its state is damaged or
    unknown; what a waiting job waits for; None in other states."""
    supervisor_state: SupervisorState | None = None
    """During training, state of the supervisor, such as waiting_for_capacity; as a metric, 1 for
    the current state and 0 for the others."""
    step: Count = 0
    """Last recorded step."""
    max_steps: Count | None = None
    """Number of steps to train, `trainer.max_steps`; None if it is unknown."""
    loss_unit: str | None = None
    """Unit over which the loss is averaged, such as "target token"; None for the task of an
    extension, because readers of runs load no extensions."""
    numbers: dict[str, float] = Field(default_factory=dict)
    """Current values of facts that are no fields; see `run_store.record.facts`."""
    smooths_labels: bool = False
    """True if the training loss includes label smoothing."""
    scores: Scores = Field(default_factory=dict)
    """Scores of the newest validation, at `scores_step`."""
    scores_step: Count | None = None
    """Step of the newest validation."""
    best: dict[str, BestScore] = Field(default_factory=dict)
    """Best value of each score among the validations since the step `best_since_step`."""
    best_since_step: Count | None = None
    """First step that was read from the metrics file, or None."""
    seconds_left: float | None = None
    """Time until `max_steps` at the speed of recent steps; None if the run is not being trained."""
    step_time: float | None = None
    """Time of the last applied step, in seconds since the epoch."""
    step_age_seconds: float | None = None
    """During training, time since the last applied step or, if later, since the start; not in the
    file."""
    owner: Owner | None = None
    """Owner; None if the run never had an owner, or if the owner's file cannot be read."""
    job_owner: str | None = None
    """Person who submitted or started the run."""
    priority: Count | None = None
    """Priority of the run's job, from 0 to 100; 50 without a job."""
    ranks: Count | None = None
    """Number of ranks of the last start."""
    rank_hours: float | None = None
    """Time for which the run had ranks, summed over them."""
    cost: float | None = None
    """Cost of these hours, by `cluster.price_per_rank_hour`; None without a price."""
    nodes: dict[str, Count] = Field(default_factory=dict)
    """Number of ranks on each node at the last start, by the node's name."""
    start: Start | None = None
    """Command, job, code and packages of the last start."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the recipe, by dotted name."""
    numerics: dict[str, Any] = Field(default_factory=dict)
    """Dataset, format, versions and numerics of the newest readable checkpoint."""
    checkpoints: tuple[CheckpointRow, ...] = ()
    """Complete checkpoints, oldest first, then those that are being written."""
    checkpoint: str | None = None
    """Path of the newest checkpoint; not in the file."""
    checkpoint_step: Count | None = None
    """Step of the newest checkpoint."""
    checkpoint_time: float | None = None
    """Time at which the newest checkpoint was written, in seconds since the epoch; as a metric, the
    time since then."""
    memory_checkpoint_step: Count | None = None
    """Newest step that the memory of the nodes holds; None without memory checkpoints, or if the
    run is not being trained."""
    slow_ranks: list[SlowRankState] = Field(default_factory=list)
    """During training, time of a slow rank as a multiple of the median of the others; the cause is
    compute or data."""
    corruption: str | None = None
    """Last finding of silent data corruption, in a sentence; None for none."""
    corruption_step: Count | None = None
    """Last step in which ranks computed different bits for the same data, or whose gradients were
    summed wrongly."""
    hang: str | None = None
    """Last finding about a hang: the ranks that did not enter a collective, in a sentence; None for
    none."""
    hang_step: Count | None = None
    """Step of the last hang of the ranks."""
    unfit_nodes: tuple[str, ...] = ()
    """Nodes that the run does not use, each with the reason; empty if the run is not being
    trained."""
    vitals: Vitals | None = None
    """State of the run's processes, or their last state; None before they start."""
    notices: list[LogEntry] = Field(default_factory=list)
    """Last entries of log.txt."""
    problems: list[str] = Field(default_factory=list)
    """Unreadable parts of the folder, each described in a sentence."""

    def in_training(self, vitals: Vitals | None) -> Self:
        """Return a copy of the status of a run that trains, with this state of its processes."""
        update: dict[str, Any] = {"state": "training", "reason": None, "vitals": vitals}
        if vitals:
            update["supervisor_state"] = vitals.supervisor_state
            update["memory_checkpoint_step"] = vitals.memory_checkpoint
            update["unfit_nodes"] = vitals.unfit_nodes
        return self.model_copy(update=update)

    @property
    def loss_form(self) -> LossForm:
        return LossForm(self.loss_unit, self.smooths_labels)

    def value(self, fact: str) -> Any:
        """Return the current value of a fact, or the length of a list; None if it is unknown."""
        value = getattr(self, fact) if fact in RunStatus.model_fields else self.numbers.get(fact)
        return len(value) if isinstance(value, list) else value
