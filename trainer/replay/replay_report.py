"""Result of a replay for users, scripts and the dashboard: a verdict and details of each step."""

import math
from typing import Any, Literal

from pydantic import Field

from foundation.file_model import FileModel


class Difference(FileModel):
    """Difference between a replay and the metrics file or a checkpoint of the run.

    Attributes:
        step: the step with the difference.
        what: the quantity that differs: data, learning rate, loss, gradient norm, whether the step
            was applied, or state.
        recorded: the recorded value, if it is one number or hash.
        replayed: the replayed value, if it is one number or hash.
        details: further facts, such as the shard or the parameters.
    """

    step: int
    what: str
    recorded: Any = None
    replayed: Any = None
    details: list[str] = Field(default_factory=list)


class Verdict(FileModel):
    """Verdict on whether the replay equals the metrics file.

    Attributes:
        same: whether no difference was found.
        promise: description of how exactly the replay was expected to equal the metrics file.
        to_the_last_bit: whether losses and state were compared bit by bit; otherwise losses and
            gradient norms are compared within the tolerance of rounding.
        ranks_for_bits: the number of ranks with which a replay on this machine can be compared bit
            by bit. None if this replay was compared bit by bit, or if no number of ranks allows
            that.
        data: the comparison of the data; `unreadable` if the dataset no longer has the steps' data.
        losses: the comparison of losses, gradient norms and learning rates; `not_compared` if the
            data was unreadable.
        state: the comparison of weights and moments with the run's checkpoints of these steps;
            `not_compared` if there is no such checkpoint, or if `to_the_last_bit` is False.
        amplified_rounding: whether losses are `same` although training has amplified the rounding
            beyond the tolerance of a single step.
    """

    same: bool
    promise: str
    to_the_last_bit: bool
    ranks_for_bits: int | None = None
    data: Literal["same", "different", "unreadable"]
    losses: Literal["same", "different", "not_compared"]
    state: Literal["same", "different", "not_compared"]
    tensors: int = 0  # number of compared weights and moments
    state_steps: list[int] = Field(default_factory=list)  # steps of the compared checkpoints
    # Largest difference of a step's loss, relative to the recorded loss.
    largest_difference: float = 0.0
    amplified_rounding: bool = False
    first_difference: Difference | None = None


class InspectedExample(FileModel):
    """Example, or part of an example, in the input of a step.

    Attributes:
        slot: the slot of its micro-batch.
        rank: the rank of the recorded run that computed the micro-batch.
        corpus: the corpus of the example.
        shard: the shard that holds the example.
        example: the number of the example in the dataset, as in `transloom data trace`.
        start: the index of the example's first token that is in the input; None for a whole
            example.
        texts: texts by name: a field's role (source, target, document) or further texts of a task,
            see `trainer.tasks.task.TrainingTask.example_texts`.
        tokens: the number of target tokens of the example.
        loss: nats per token with the dropout of the step, without label smoothing; None if it is
            not finite.
        share: the example's share of the step's loss; None if the loss is not finite.
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
    """Range of a module's outputs over all micro-batches of a step.

    All values are None if an output is not finite.
    """

    minimum: float | None
    maximum: float | None
    mean: float | None
    largest_magnitude: float | None


class InspectedStep(FileModel):
    """Inspected step of a replay, with the values of its line in the metrics file.

    Attributes:
        step: the number of the step.
        loss: the loss; None if the step was skipped.
        nll: the loss without label smoothing; None if the step was skipped.
        grad_norm: the norm of the gradients; None if the step was skipped.
        recorded_loss: the loss in the metrics file; None if the recorded step was skipped.
        recorded_grad_norm: the norm in the metrics file; None if the recorded step was skipped.
        examples: the examples of the step, largest loss first.
        gradient_norms: norms of the gradients before clipping, by module; the root of the sum of
            their squares is `grad_norm`.
        activations: ranges by module, in the order of the model.
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
    """Report of a replay of the steps `from_step` to `to_step`.

    Attributes:
        run: the run's folder.
        from_step: the first step of the replay.
        to_step: the last step of the replay.
        replayed_from: the step of the checkpoint from which the replay started; 0 if it started
            from the run's first weights.
        steps_trained: the number of repeated steps, including those before `from_step`.
        ranks: the number of ranks.
        verdict: the result of the comparison.
        steps: the inspected steps.
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
    """Return the value if it is finite, and None otherwise, because JSON has no NaN."""
    return value if math.isfinite(value) else None
