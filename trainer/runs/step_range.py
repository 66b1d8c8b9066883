"""The steps to profile, and where the profile lies; see `trainer.training.step_profiler`."""

from dataclasses import dataclass
from pathlib import Path

from trainer.runs.folder import RunFolder


@dataclass(frozen=True)
class StepRange:
    """The training steps `first` to `last`, both inclusive."""

    first: int
    last: int

    def __contains__(self, step: int) -> bool:
        return self.first <= step <= self.last

    def __str__(self) -> str:
        return f"{self.first}:{self.last}"


def profile_folder(run: RunFolder, steps: StepRange) -> Path:
    """The folder of the traces of all ranks, which exists from the first of these steps on."""
    return run.profiles / f"steps-{steps.first}-{steps.last}"
