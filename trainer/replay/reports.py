"""Reports of each rank of a replay, for the verdict: JSON files, with a class for each kind."""

from pathlib import Path

from data_pipeline.storage.durable import write_whole
from foundation.written import Written


class SeenExample(Written):
    """Example as its rank saw it; `trainer.replay.look.FedExample` has further fields."""

    slot: int
    example: int
    start: int | None
    texts: dict[str, str]
    tokens: int
    loss: float | None  # the sum over its tokens


class SeenActivations(Written):
    """Range and sum of a module's outputs on one rank."""

    minimum: float
    maximum: float
    total: float
    count: int

    def plus(self, other: "SeenActivations") -> "SeenActivations":
        return SeenActivations(
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            total=self.total + other.total,
            count=self.count + other.count,
        )


class SeenStep(Written):
    """Observations of one rank in a step.

    Attributes:
        examples: the examples of its micro-batches.
        activations: by module; None for a module with outputs that are not finite.
        gradient_squares: by parameter, the squared norm of the step's whole gradient, or None if it
            is not finite. Only rank 0 has them.
    """

    examples: list[SeenExample]
    activations: dict[str, SeenActivations | None]
    gradient_squares: dict[str, float | None]


class SeenState(Written):
    """Comparison of the state that one rank owned with a checkpoint of the same step.

    Attributes:
        tensors: the names of the compared tensors, as kind:parameter.
        different: the tensors that differ in a bit, with the largest difference; None if it is not
            finite.
        problem: the reason why the checkpoint could not be read.
    """

    tensors: list[str]
    different: dict[str, float | None]
    problem: str | None = None


def leave(path: Path, report: Written) -> None:
    """Write a report, atomically."""
    write_whole(path, report.model_dump_json())
