"""What each rank of a replay leaves for whoever judges it: files of JSON, a class for each."""

from pathlib import Path

from data_pipeline.storage.durable import write_whole
from foundation.written import Written


class SeenExample(Written):
    """An example as its rank saw it; `trainer.replay.look.FedExample` has the rest."""

    slot: int
    example: int
    start: int | None
    texts: dict[str, str]
    tokens: int
    loss: float | None  # the sum over its tokens


class SeenActivations(Written):
    """Values that a module gave out in one rank."""

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
    """What one rank saw of a step.

    Attributes:
        activations: by module; None for one that gave out what is not finite.
        gradient_squares: by parameter, the squared norm of the step's whole gradient; rank 0 has
            it, the others have none. None where it is not finite.
    """

    examples: list[SeenExample]
    activations: dict[str, SeenActivations | None]
    gradient_squares: dict[str, float | None]


class SeenState(Written):
    """How the state that one rank owned at a checkpoint's step compares with the checkpoint.

    Attributes:
        tensors: the names of what was compared, as kind:parameter.
        different: those of them that differ in a bit, each with the largest difference.
        problem: why the checkpoint could not be read.
    """

    tensors: list[str]
    different: dict[str, float | None]
    problem: str | None = None


def leave(path: Path, report: Written) -> None:
    """Write a report, all at once."""
    write_whole(path, report.model_dump_json())
