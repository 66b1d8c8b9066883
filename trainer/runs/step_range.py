"""Steps to profile, and the folder of their profile; see `trainer.training.step_profiler`."""

from dataclasses import dataclass
from pathlib import Path

from trainer.runs.folder import RunFolder


@dataclass(frozen=True)
class StepRange:
    """Training steps from `first` to `last`, both inclusive."""

    first: int
    last: int

    def __contains__(self, step: int) -> bool:
        return self.first <= step <= self.last

    def __str__(self) -> str:
        return f"{self.first}:{self.last}"


def profile_folder(run: RunFolder, steps: StepRange) -> Path:
    """Return the folder of all ranks' traces; it is created when the first trace is written."""
    return run.profiles / f"steps-{steps.first}-{steps.last}"
