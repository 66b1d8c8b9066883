"""Lines of metrics.jsonl, with a class for each kind of line.

Every step has one line: a `TrainLine`, or a `SkippedLine` if the step was not applied. A
`ValidationLine` follows the line of the step that was validated. An event has the number of the
last recorded step.

The `version` of a line identifies its format. The JSON of a line leaves out values that are None
(unknown).

The text below a field is its description. `run_store.record.facts` adds how views show it.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter

from data_pipeline.batching.plan import Cursor
from foundation.file_model import Count, FileModel
from foundation.untrusted_text import visible_in_json
from foundation.wording import counted
from run_store.record.corruption import CorruptionFinding, Finding, ReductionFinding
from run_store.record.hang import HangFinding, RankOnNode
from run_store.scores import Scores

VERSION: Literal[2] = 2

MAX_FLOPS = 10**30  # limit per step or second, which all computers together cannot reach
FlopCount = Annotated[int, Field(ge=0, le=MAX_FLOPS)]


class _Line(FileModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    version: Literal[2] = VERSION
    step: Count
    """Number of the step, or of the last recorded step for an event."""

    def to_json(self) -> str:
        """Return the line as JSON.

        Raises:
            ValueError: a number is infinite or NaN.
        """
        values = self.model_dump(mode="json", exclude_none=True)
        return visible_in_json(json.dumps(values, ensure_ascii=False, allow_nan=False))


class _StepLine(_Line):
    """Fields of every step line: the cursor of the step, and the digest of all data so far."""

    epoch: Count
    """Epoch of the step's first micro-batch."""
    window: Count
    """Window of the step's first micro-batch, within the epoch."""
    offset: Count
    """Position of the step's first micro-batch within the window."""
    data_digest: str
    """Running hash of all token ids that the run has trained on."""
    observed: dict[str, float] | None = None
    """Numbers that observers of extensions add, as TYPE/NAME."""

    @property
    def cursor(self) -> Cursor:
        """Cursor of the step's first micro-batch."""
        return Cursor(self.epoch, self.window, self.offset)


SlowCause = Literal["compute", "data"]


class SlowRankState(RankOnNode):
    """Rank that is slower than the others, see `trainer.training.slow_ranks`.

    Attributes:
        cause: "compute" if the rank computes longer than the others, "data" if it waits longer for
            data.
        factor: the rank's time as a multiple of the other ranks' median time; median over 25 steps.
    """

    cause: SlowCause
    factor: float

    @property
    def reason(self) -> str:
        """Factor and cause, such as "2.03 times as long as the others, because it …"."""
        cause = "computes longer" if self.cause == "compute" else "waits longer for data"
        return f"{self.factor:.3g} times as long as the others, because it {cause}"


class TrainLine(_StepLine):
    """Step whose update was applied to the weights.

    A field is None if its value is unknown, as in lines of versions that did not record it.
    `restarts` and the four totals after it are None if the step was repeated, see
    `trainer.tracking.recorder`. Fields that compare ranks are None with one rank.
    """

    kind: Literal["train"] = "train"
    time: float
    """Time at which the step ended, in seconds since the epoch."""
    loss: float
    """Minimised loss in nats per target token, including label smoothing."""
    nll: float
    """Loss in nats per target token, without label smoothing."""
    learning_rate: float
    """Learning rate of the step."""
    grad_norm: float
    """Global norm of the gradients before clipping."""
    target_tokens: Count
    """Number of target tokens of the step on all ranks. Tasks that divide their loss by another
    unit count this unit instead."""
    target_tokens_seen: Count
    """Target tokens of all steps up to this one."""
    target_tokens_per_second: float
    """Target tokens per second of all ranks: `target_tokens` divided by `step_seconds`."""
    padding_fraction: float
    """Share of padded positions."""
    step_seconds: float
    """Duration of the step, without validation and checkpoint."""
    data_stall_seconds: float
    """Time for which the ranks waited for the step's data; mean over the ranks."""
    checkpoint_stall_seconds: float
    """Time for which a checkpoint stalled rank 0 before the step."""
    world_size: Count
    """Number of ranks."""
    restarts: Count | None = None
    """Number of starts of the ranks after the first start."""
    lost_steps: Count | None = None
    """Number of recorded steps that had to be trained again."""
    wall_seconds: float | None = None
    """Time for which a driver owned the run, up to this step."""
    counted_seconds: float | None = None
    """Duration of all applied steps, without repetitions."""
    goodput: float | None = None
    """Share of the wall time spent in steps that counted."""
    other_sums: dict[str, float] | None = None
    """Further sums that the network's forward pass returns, per target token, by name."""
    model_flops: FlopCount | None = None
    """Floating-point operations that the step's tokens need for forward and backward, summed over
    all ranks. They do not depend on the number of ranks, see `model.flops`. None if operations are
    not counted."""
    hardware_flops: FlopCount | None = None
    """Operations that were executed, including those for padding and for recomputed activations."""
    tflops_per_second: float | None = None
    """Rate of model FLOPs of all ranks, in TFLOP/s."""
    tflops_per_second_per_rank: float | None = None
    """Rate of model FLOPs per rank, in TFLOP/s."""
    mfu: float | None = None
    """Model FLOPs utilization: `model_flops` per second as a share of the ranks' peak. None if the
    peak is unknown."""
    compute_seconds_min: float | None = None
    """Compute time of the fastest rank, without waits for other ranks; see
    `trainer.process.step_timer`."""
    compute_seconds_median: float | None = None
    """Median of the compute times of all ranks."""
    compute_seconds_max: float | None = None
    """Compute time of `compute_slowest_rank`."""
    compute_slowest_rank: Count | None = None
    """Rank that computed for the longest time. With an uneven number of slots, it is often a rank
    with one slot more."""
    compute_imbalance: float | None = None
    """Share of the ranks' time that is lost because one rank computes longest: 1 minus the mean of
    the compute times, divided by their maximum. With an uneven number of slots, it is above 0."""
    data_stall_seconds_median: float | None = None
    """Median of the times for which the ranks waited for the step's data."""
    data_stall_seconds_max: float | None = None
    """Time for which `data_slowest_rank` waited for the step's data."""
    data_slowest_rank: Count | None = None
    """Rank that waited for data for the longest time."""
    wait_seconds: float | None = None
    """Time for which the ranks waited for each other in collectives, since the exchange of the step
    before; mean over the ranks."""
    slow_ranks: list[SlowRankState] | None = None
    """Ranks that were slower than the others in the steps before this one, slowest first; None if
    no rank was."""


class SkippedLine(_StepLine):
    """Step that was not applied.

    `loss` and the fields after it are None if the step was not finite.
    """

    kind: Literal["skipped"] = "skipped"
    cause: Literal["not finite", "spike", "guard"] = "not finite"
    """Reason in short: "not finite" if the loss or a gradient was infinite or NaN, "spike" if
    `trainer.spike_guard` refused the step, and "guard" if a guard of an extension did."""
    refusal: str | None = None
    """Reason that a guard of an extension gives, as a clause."""
    slots: list[Count]
    """Slots that were not finite; empty if only the sum of the gradients was not. For a spike, the
    slots with a loss above the threshold, or else the slot with the largest."""
    ranks: list[Count]
    """Ranks that computed these slots."""
    in_a_row: Count
    """Number of consecutive skipped steps, including this one."""
    skipped_steps: Count
    """Number of skipped steps of the whole run."""
    skipped_spikes: Count = 0
    """Number of skipped steps that a guard refused, such as spikes; the others were not finite."""
    loss: float | None = None
    """As in `TrainLine`."""
    grad_norm: float | None = None
    """As in `TrainLine`."""
    loss_threshold: float | None = None
    """Largest loss that was no spike; None if every loss was accepted."""
    grad_norm_threshold: float | None = None
    """Largest gradient norm that was no spike; None if every norm was accepted."""

    @property
    def reason(self) -> str:
        """Reason for skipping the step, as a clause such as "its loss was above …"."""
        if self.cause == "not finite":
            where = f" in {counted(len(self.slots), 'slot')}" if self.slots else ""
            return f"its loss or gradient was not finite{where}"
        if self.refusal:
            return self.refusal
        pairs = (
            ("loss", self.loss, self.loss_threshold),
            ("gradient norm", self.grad_norm, self.grad_norm_threshold),
        )
        spikes = [
            f"its {name} {value:.4g} was above the threshold {limit:.4g}"
            for name, value, limit in pairs
            if value is not None and limit is not None and value > limit
        ]
        return " and ".join(spikes) or "it was a spike"


class Sample(FileModel):
    """Held-out sentence, its reference, and its translation."""

    source: str
    reference: str
    translation: str


class ValidationLine(_Line):
    """Scores of the model on the validation set."""

    kind: Literal["validation"] = "validation"
    scores: Scores
    """Scores by name."""
    seconds: float
    """Duration of the validation."""
    samples: list[Sample]
    """Some sentences with their translations."""


class _Event(_Line):
    kind: Literal["event"] = "event"

    @property
    def details(self) -> dict[str, Any]:
        """Fields that only this kind of event has, as JSON values."""
        return self.model_dump(mode="json", exclude={*_Line.model_fields, "kind", "event"})


# Prefix of `Resumed.promise` if losses and weights stay the same to the last bit.
EVERY_BIT = "same data, and the same losses and weights to the last bit"


class Resumed(_Event):
    """Start of the ranks after the run's first start.

    Attributes:
        from_step: the step of the checkpoint that the ranks resume from, or 0.
        promise: description of how exactly the run continues its curve, see
            docs/explanation/exactness.md; None without a checkpoint.
        numerics_changed: entries of the numerics fingerprint that have changed since the
            checkpoint, each as [value in the checkpoint, value now].
        settings_changed: continuable fields of the recipe that have changed since the checkpoint,
            each as [value in the checkpoint, value now].
        quarantined: shards that have been quarantined since the checkpoint.
        window_left_at: the checkpoint's cursor if the run continues at another cursor, otherwise
            None.
        restarts: the number of restarts of the run so far, see `trainer.tracking.recorder`.
        lost_steps: the number of lost steps of the run so far, see `trainer.tracking.recorder`.
    """

    event: Literal["resumed"] = "resumed"
    from_step: Count
    promise: str | None = None
    numerics_changed: dict[str, list[Any]] = Field(default_factory=dict)
    settings_changed: dict[str, list[Any]] = Field(default_factory=dict)
    quarantined: list[str] = Field(default_factory=list)
    window_left_at: dict[str, int] | None = None
    restarts: Count | None = None
    lost_steps: Count | None = None

    @property
    def keeps_every_bit(self) -> bool:
        """True if losses and weights stay the same to the last bit."""
        return (self.promise or "").startswith(EVERY_BIT)


class Resized(_Event):
    """Continuation of the run with another number of ranks.

    Attributes:
        reason: why the number has changed, as a clause; None if ranks were lost.
        promise: as in `Resumed`.
    """

    event: Literal["resized"] = "resized"
    from_ranks: Count
    to_ranks: Count
    reason: str | None = None
    promise: str | None = None


class Preempted(_Event):
    """Exit of the ranks after a stop request."""

    event: Literal["preempted"] = "preempted"


class Repeated(_Event):
    """Repetition of a step because a gradient did not fit its grid (`trainer.exact`).

    Attributes:
        grids_widened: the parameters whose grids were widened for these gradients.
    """

    event: Literal["repeated"] = "repeated"
    grids_widened: list[str]


class ReplayMismatch(_Event):
    """Difference between a step that was repeated after a restart and its line in the metrics file.

    Attributes:
        replayed_step: the repeated step.
        fields: the fields that differ, each as [recorded value, value of the repetition].
    """

    event: Literal["replay_mismatch"] = "replay_mismatch"
    replayed_step: Count
    fields: dict[str, list[Any]]


class SlowRankFound(_Event, SlowRankState):
    """Rank that has become slower than the others, see `trainer.training.slow_ranks`.

    Attributes:
        seconds: the rank's time per step for computing and waiting for data. Computing is scaled to
            the mean work of all ranks.
        other_seconds: the median of these times of the other ranks.
    """

    event: Literal["slow_rank"] = "slow_rank"
    seconds: float
    other_seconds: float


class RankRecovered(_Event, RankOnNode):
    """Rank that is no longer slower than the others.

    Attributes:
        factor: as in `SlowRankState`.
    """

    event: Literal["rank_recovered"] = "rank_recovered"
    factor: float


class _FindingEvent(_Event):
    """Event with a finding of the ranks or the driver, and the fields of the finding's class."""

    @classmethod
    def of(cls, finding: FileModel, last_step: int) -> Self:
        """Return the event of a finding; its step is the last recorded step."""
        return cls.model_validate({"step": last_step, **finding.model_dump()})


class CorruptionEvent(_FindingEvent, Finding):
    """Finding of silent data corruption."""


class CorruptionFound(CorruptionEvent, CorruptionFinding):
    """Step that was not applied because ranks computed different bits for the same slot.

    The other fields are those of `run_store.record.corruption.CorruptionFinding`.
    """

    event: Literal["corruption_found"] = "corruption_found"


class WrongReduction(CorruptionEvent, ReductionFinding):
    """Summed gradients that were wrong, and were not applied.

    The other fields are those of `run_store.record.corruption.ReductionFinding`.
    """

    event: Literal["wrong_reduction"] = "wrong_reduction"


class RankHung(_FindingEvent, HangFinding):
    """Hang of the ranks, with the first collective that a rank did not enter.

    The other fields are those of `run_store.record.hang.HangFinding`.
    """

    event: Literal["rank_hung"] = "rank_hung"


StepLine = TrainLine | SkippedLine
Event = (
    Resumed
    | Resized
    | Preempted
    | Repeated
    | ReplayMismatch
    | SlowRankFound
    | RankRecovered
    | CorruptionFound
    | WrongReduction
    | RankHung
)
Line = StepLine | ValidationLine | Event

_LINES: TypeAdapter[Line] = TypeAdapter(
    Annotated[
        TrainLine | SkippedLine | ValidationLine | Annotated[Event, Field(discriminator="event")],
        Field(discriminator="kind"),
    ]
)


def parse_line(text: bytes) -> Line:
    """Parse a line of metrics.jsonl.

    Raises:
        pydantic.ValidationError: the line is invalid.
    """
    return _LINES.validate_json(text)
