"""Options of a replay, sent to each rank with its job, and the paths of the ranks' reports."""

from dataclasses import dataclass, field
from pathlib import Path

from trainer.runs.step_range import StepRange


@dataclass(frozen=True)
class ReplayOptions:
    """Options of a replay, which trains recorded steps again to compare and inspect them.

    Attributes:
        folder: the folder for the reports of all ranks.
        looked_at: the steps to inspect; None inspects no step.
        checkpoints: the run's checkpoints with which the state is compared, by step.
        goes_on: whether to save the state after the last step. It is True if the replay continues
            from that state with another version of the dataset.
        url: the location of the run if it is in an object store; the folder that the ranks train in
            stands for it.
    """

    folder: Path
    looked_at: StepRange | None = None
    checkpoints: dict[int, Path] = field(default_factory=dict)
    goes_on: bool = False
    url: str | None = None

    @property
    def numerics_file(self) -> Path:
        """File in which rank 0 writes the numerics fingerprint of the replay."""
        return self.folder / "numerics.json"

    def state_file(self, step: int, rank: int) -> Path:
        return self.folder / f"state-{step:08d}.rank-{rank:05d}.json"

    def inspection_file(self, step: int, rank: int) -> Path:
        return self.folder / f"look-{step:08d}.rank-{rank:05d}.json"
