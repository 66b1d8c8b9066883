"""What each rank of a replay leaves for whoever judges it: files of JSON, a class for each."""

from pathlib import Path

from data_pipeline.storage.durable import write_atomically
from foundation.file_model import FileModel


class RankExampleReport(FileModel):
    """An example as its rank saw it; `trainer.replay.replay_report.InspectedExample` has the rest."""

    slot: int
    example: int
    start: int | None
    texts: dict[str, str]
    tokens: int
    loss: float | None  # the sum over its tokens


class RankActivationReport(FileModel):
    """Values that a module gave out in one rank."""

    minimum: float
    maximum: float
    total: float
    count: int

    def plus(self, other: "RankActivationReport") -> "RankActivationReport":
        return RankActivationReport(
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            total=self.total + other.total,
            count=self.count + other.count,
        )


class RankStepReport(FileModel):
    """What one rank saw of a step.

    Attributes:
        activations: by module; None for one that gave out what is not finite.
        gradient_squares: by parameter, the squared norm of the step's whole gradient; rank 0 has
            it, the others have none. None where it is not finite.
    """

    examples: list[RankExampleReport]
    activations: dict[str, RankActivationReport | None]
    gradient_squares: dict[str, float | None]


class RankStateReport(FileModel):
    """How the state that one rank owned at a checkpoint's step compares with the checkpoint.

    Attributes:
        tensors: the names of what was compared, as kind:parameter.
        different: those of them that differ in a bit, each with the largest difference.
        problem: why the checkpoint could not be read.
    """

    tensors: list[str]
    different: dict[str, float | None]
    problem: str | None = None


def write_rank_report(path: Path, report: FileModel) -> None:
    """Write a report, all at once."""
    write_atomically(path, report.model_dump_json())
