"""Lines of metrics.jsonl, with a class for each kind.

Every step has one line, a `TrainLine`, or a `SkippedLine` if it was not applied. A `ValidationLine`
follows the step that was validated, and an event has the number of the last recorded step.

The `version` of a line identifies its format. Lines of version 1 have none; they are read as lines
of this version. Unknown values (None) are left out of a line's JSON.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from data_pipeline.batching.plan import Cursor
from foundation.file_model import Count, FileModel
from foundation.untrusted_text import visible_in_json
from trainer.scores import MORE_IS_BETTER, Scores, scores_of

VERSION: Literal[2] = 2

MAX_FLOPS = 10**30  # of a step, or a second; more than all computers together compute
FlopCount = Annotated[int, Field(ge=0, le=MAX_FLOPS)]


class _Line(FileModel):
    version: Literal[2] = VERSION
    step: Count

    def to_json(self) -> str:
        """Return the line as JSON.

        Raises:
            ValueError: a number is infinite or NaN.
        """
        values = self.model_dump(mode="json", exclude_none=True)
        return visible_in_json(json.dumps(values, ensure_ascii=False, allow_nan=False))


class _StepLine(_Line):
    """Fields of every step: the position of its data, and the digest of all data up to it."""

    epoch: Count
    window: Count
    offset: Count
    data_digest: str

    @property
    def cursor(self) -> Cursor:
        """Cursor of the step's first micro-batch."""
        return Cursor(self.epoch, self.window, self.offset)


class TrainLine(_StepLine):
    """Step of the training that was applied.

    Attributes:
        time: when it ended, in seconds since the epoch.
        loss: the minimised quantity per target token: nats, with label smoothing.
        nll: nats per target token, without label smoothing.
        learning_rate: the learning rate of the step.
        grad_norm: the global norm of the gradients before clipping.
        target_tokens: target tokens of this step over all ranks, or the task's other denominator of
            the loss.
        target_tokens_seen: target tokens of all steps up to this one.
        target_tokens_per_second: `target_tokens` over `step_seconds`.
        padding_fraction: the share of padded positions.
        step_seconds: the duration of the step, without validation and checkpoint.
        data_stall_seconds: how long the ranks waited for the step's data; mean over the ranks.
        checkpoint_stall_seconds: how long the checkpoint before the step stalled rank 0.
        world_size: the number of ranks.
        other_sums: further sums of the network's forward, per target token.
        model_flops: floating-point operations that the step's tokens need, forward and backward, of
            all ranks: the same for any number of ranks, see `model.flops`. None, with the fields
            that follow from it, if they are not counted, or by a version that did not count.
        hardware_flops: operations that were computed: with padding, and recomputed activations.
        tflops_per_second: 10¹² `model_flops` a second, of all ranks.
        tflops_per_second_per_rank: the same, of each rank.
        mfu: model FLOPs utilization, the share of the ranks' peak; None if a peak is unknown.
        restarts: this and the following fields: see `trainer.record.goodput`. None if the step was
            repeated, or recorded by a version that did not count.
    """

    kind: Literal["train"] = "train"
    time: float
    loss: float
    nll: float
    learning_rate: float
    grad_norm: float
    target_tokens: Count
    target_tokens_seen: Count
    target_tokens_per_second: float
    padding_fraction: float
    step_seconds: float
    data_stall_seconds: float
    checkpoint_stall_seconds: float
    world_size: Count
    restarts: Count | None = None
    lost_steps: Count | None = None
    wall_seconds: float | None = None
    counted_seconds: float | None = None
    goodput: float | None = None
    other_sums: dict[str, float] | None = None
    model_flops: FlopCount | None = None
    hardware_flops: FlopCount | None = None
    tflops_per_second: float | None = None
    tflops_per_second_per_rank: float | None = None
    mfu: float | None = None


class SkippedLine(_StepLine):
    """Step that was not applied, because its loss or gradient was not finite.

    Attributes:
        slots: the slots that were not finite; empty if only the sum of the gradients was not.
        ranks: the ranks that computed these slots.
        in_a_row: the number of consecutive skipped steps, including this one.
        skipped_steps: the number of skipped steps of the whole run.
    """

    kind: Literal["skipped"] = "skipped"
    slots: list[Count]
    ranks: list[Count]
    in_a_row: Count
    skipped_steps: Count


class Sample(FileModel):
    """Held-out sentence, its reference, and its translation."""

    source: str
    reference: str
    translation: str


class ValidationLine(_Line):
    """Scores of the model on the validation set.

    Attributes:
        scores: the scores by name.
        seconds: how long the validation took.
        samples: some sentences with their translations.
    """

    kind: Literal["validation"] = "validation"
    scores: Scores
    seconds: float
    samples: list[Sample]

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, values: Any) -> Any:
        """Convert a line of version 1, which had a field for each score."""
        if not isinstance(values, dict) or "scores" in values:
            return values
        rest = {name: value for name, value in values.items() if name not in MORE_IS_BETTER}
        return rest | {"scores": scores_of({name: values.get(name) for name in MORE_IS_BETTER})}


class _Event(_Line):
    kind: Literal["event"] = "event"

    @property
    def details(self) -> dict[str, Any]:
        """Fields of the event besides its name, as JSON values."""
        return self.model_dump(mode="json", exclude={*_Line.model_fields, "kind", "event"})


# Prefix of `Resumed.promise` if losses and weights stay the same to the last bit.
EVERY_BIT = "same data, and the same losses and weights to the last bit"


class Resumed(_Event):
    """Start of the ranks after the first one.

    Attributes:
        from_step: the step of the checkpoint that they resume from, or 0.
        promise: description of how far the curve will be the same, see docs/exactness.md.
        numerics_changed: entries of the fingerprint that have changed, each as [then, now].
        settings_changed: continuable settings that have changed, each as [then, now].
        quarantined: shards that have been left out since then.
        window_left_at: the checkpoint's position in the data, if the run continues at another one.
        restarts: restarts of the run so far, see `trainer.record.goodput`.
        lost_steps: lost steps of the run so far, see `trainer.record.goodput`.
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
    """Continuation of the run with another number of ranks."""

    event: Literal["resized"] = "resized"
    from_ranks: Count
    to_ranks: Count


class Preempted(_Event):
    """Exit of the ranks after a stop request."""

    event: Literal["preempted"] = "preempted"


class Repeated(_Event):
    """Repetition of a step because a gradient did not fit its grid (`trainer.exact`).

    Attributes:
        grids_widened: the parameters of these gradients.
    """

    event: Literal["repeated"] = "repeated"
    grids_widened: list[str]


class ReplayMismatch(_Event):
    """Difference between a step that was repeated after a restart and the record.

    Attributes:
        replayed_step: the repeated step.
        fields: the fields that differ, each as [then, now].
    """

    event: Literal["replay_mismatch"] = "replay_mismatch"
    replayed_step: Count
    fields: dict[str, list[Any]]


StepLine = TrainLine | SkippedLine
Event = Resumed | Resized | Preempted | Repeated | ReplayMismatch
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
