"""Options of a replay, sent to each rank with its job, and the files of its reports."""

from dataclasses import dataclass, field
from pathlib import Path

from trainer.runs.step_range import StepRange


@dataclass(frozen=True)
class ReplayOptions:
    """Steps that are trained only to be compared and inspected.

    Attributes:
        folder: the folder for the reports of all ranks.
        looked_at: the steps to inspect, or None.
        checkpoints: the run's checkpoints to compare the state with, by step.
        goes_on: whether to save the state after the last step, because another leg continues from
            it.
    """

    folder: Path
    looked_at: StepRange | None = None
    checkpoints: dict[int, Path] = field(default_factory=dict)
    goes_on: bool = False

    @property
    def numerics_file(self) -> Path:
        """File with the fingerprint of the replay's numerics, which rank 0 writes."""
        return self.folder / "numerics.json"

    def state_file(self, step: int, rank: int) -> Path:
        return self.folder / f"state-{step:08d}.rank-{rank:05d}.json"

    def inspection_file(self, step: int, rank: int) -> Path:
        return self.folder / f"look-{step:08d}.rank-{rank:05d}.json"
