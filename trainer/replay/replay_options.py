"""What the ranks of a replay are told beside their job, and where they leave what they saw."""

from dataclasses import dataclass, field
from pathlib import Path

from trainer.runs.step_range import StepRange


@dataclass(frozen=True)
class ReplayOptions:
    """Steps that are trained only to be compared and looked at.

    Attributes:
        folder: where each rank leaves its reports; all ranks write there.
        looked_at: the steps to look into; None for none.
        checkpoints: those of the run, by step, with which the state is compared.
        goes_on: whether the state is kept after the last step, as another leg goes on from it.
    """

    folder: Path
    looked_at: StepRange | None = None
    checkpoints: dict[int, Path] = field(default_factory=dict)
    goes_on: bool = False

    @property
    def numerics_file(self) -> Path:
        """The fingerprint of the replay's numerics; rank 0 writes it."""
        return self.folder / "numerics.json"

    def state_file(self, step: int, rank: int) -> Path:
        return self.folder / f"state-{step:08d}.rank-{rank:05d}.json"

    def inspection_file(self, step: int, rank: int) -> Path:
        return self.folder / f"look-{step:08d}.rank-{rank:05d}.json"
