"""Reports of each rank of a replay, for the verdict: JSON files, with a class for each kind."""

from pathlib import Path

from data_pipeline.storage.regular_files import write_atomically
from foundation.file_model import FileModel


class RankExampleReport(FileModel):
    """Part of an `InspectedExample` (`trainer.replay.replay_report`), reported by one rank."""

    slot: int
    example: int
    start: int | None
    texts: dict[str, str]
    tokens: int
    loss: float | None  # sum of the losses of its tokens; None if the sum is not finite


class RankActivationReport(FileModel):
    """Range and sum of a module's outputs on one rank."""

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
    """Observations of one rank in a step.

    Attributes:
        examples: the examples of the rank's micro-batches.
        activations: the report of each module, by name; None for a module with outputs that are not
            finite.
        gradient_squares: by parameter, the squared norm of the step's whole gradient, or None if it
            is not finite. Empty on all ranks except 0.
    """

    examples: list[RankExampleReport]
    activations: dict[str, RankActivationReport | None]
    gradient_squares: dict[str, float | None]


class RankStateReport(FileModel):
    """Comparison of the state that one rank owned with a checkpoint of the same step.

    Attributes:
        tensors: the names of the compared tensors, as kind:parameter.
        different: the largest difference of each tensor that differs in any bit, by the tensor's
            name; None if the difference is not finite.
        problem: the reason why the checkpoint could not be read, or None.
    """

    tensors: list[str]
    different: dict[str, float | None]
    problem: str | None = None


def write_rank_report(path: Path, report: FileModel) -> None:
    """Write a report, atomically."""
    write_atomically(path, report.model_dump_json())
