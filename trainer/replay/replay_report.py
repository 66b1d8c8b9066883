"""What a replay says, for people, scripts and the dashboard: a verdict, and a look at each step."""

import math
from typing import Any, Literal

from pydantic import Field

from foundation.file_model import FileModel


class Difference(FileModel):
    """The first thing in which replay and record differ.

    Attributes:
        what: data, learning rate, loss, gradient norm, whether the step counts, or state.
        recorded, replayed: both values, if it is one number or hash.
        details: what else is to be said, such as the shard or the parameters.
    """

    step: int
    what: str
    recorded: Any = None
    replayed: Any = None
    details: list[str] = Field(default_factory=list)


class Verdict(FileModel):
    """Whether the replay is what the record says.

    Attributes:
        promise: to what the run was held, in words.
        to_the_last_bit: whether losses and state were held to every bit; if not, losses and
            gradient norms to what rounding explains.
        ranks_for_bits: the number of ranks on which a replay here would be held to every bit; None
            if it was, or if more than the ranks keeps it from that.
        data: `same`, `different`, or `unreadable`: the dataset does not give it any more.
        losses: with gradient norms and learning rates. `not_compared` after unreadable data.
        state: weights and moments at the run's checkpoints among these steps; `not_compared` if
            there is none, or if bits are not promised.
        amplified_rounding: whether losses are `same` although training has amplified the rounding
            to more than the tolerance of a single step.
    """

    same: bool
    promise: str
    to_the_last_bit: bool
    ranks_for_bits: int | None = None
    data: Literal["same", "different", "unreadable"]
    losses: Literal["same", "different", "not_compared"]
    state: Literal["same", "different", "not_compared"]
    tensors: int = 0  # weights and moments that were compared
    state_steps: list[int] = Field(default_factory=list)  # the checkpoints' steps
    largest_difference: float = 0.0  # between losses of the same step, relative to the record's
    amplified_rounding: bool = False
    first_difference: Difference | None = None


class InspectedExample(FileModel):
    """An example, or a part of one, that a step was fed.

    Attributes:
        slot, rank: its micro-batch, and which rank of the recorded run computed it.
        example: its number in the dataset, as `transloom data trace` has it.
        start: where in its example a part begins, in tokens; None for whole ones.
        texts: by what they are called, a field's role (source, target, document) or what else a
            task tells, see `trainer.tasks.task.TrainingTask.example_texts`.
        tokens: its target tokens.
        loss: nats per token with the step's own dropout, without label smoothing; None if it is
            not finite.
        share: of the step's loss; None if that is not finite.
    """

    slot: int
    rank: int
    corpus: str
    shard: str
    example: int
    start: int | None = None
    texts: dict[str, str]
    tokens: int
    loss: float | None
    share: float | None


class ActivationRange(FileModel):
    """What a module gave out in the step, over all micro-batches; None where it is not finite."""

    minimum: float | None
    maximum: float | None
    mean: float | None
    largest_magnitude: float | None


class InspectedStep(FileModel):
    """A step as it was trained again, beside its line in the record.

    Attributes:
        loss, nll, grad_norm: None if the step was skipped; the NLL has no label smoothing.
        examples: those with the largest loss first.
        gradient_norms: before clipping, by module; the root of the sum of their squares is
            `grad_norm`.
        activations: by module, in the order of the model.
    """

    step: int
    loss: float | None
    nll: float | None = None
    grad_norm: float | None
    recorded_loss: float | None
    recorded_grad_norm: float | None
    examples: list[InspectedExample] = Field(default_factory=list)
    gradient_norms: dict[str, float | None] = Field(default_factory=dict)
    activations: dict[str, ActivationRange] = Field(default_factory=dict)


class ReplayReport(FileModel):
    """The report of a replay of the steps `from_step` to `to_step`.

    Attributes:
        replayed_from: the step of the checkpoint that it began at; 0: the run's first weights.
        steps_trained: those before `from_step` included.
    """

    run: str
    from_step: int
    to_step: int
    replayed_from: int
    steps_trained: int
    ranks: int
    verdict: Verdict
    steps: list[InspectedStep]


def finite(value: float) -> float | None:
    """A number that JSON can hold."""
    return value if math.isfinite(value) else None
