"""The job that every rank of an attempt is given, and the context that its parts share."""

from dataclasses import dataclass
from pathlib import Path

from trainer.rank.placement import Placement
from trainer.rank.supervision import Supervision
from trainer.recipe import TrainingRecipe
from trainer.replay.replay_options import ReplayOptions
from trainer.runs.folder import RunFolder
from trainer.runs.step_range import StepRange
from trainer.runs.warm_start import WarmStart


@dataclass(frozen=True)
class RankJob:
    """A run to train, and where it starts.

    Attributes:
        run: the run's folder.
        dataset_identity: the identity of the manifest to train on.
        checkpoint: the complete checkpoint to go on from; None starts at step 0.
        verify_checkpoint: hash its files while the engine is built; otherwise that has been done.
        warm_start: the weights that step 0 starts with; None for random ones.
        work: the owner's work folder, see `trainer.checkpoints.lease`.
        attempt: the supervisor's name for this start of the ranks.
        session_started: when the owner began, in seconds since the epoch.
        profile: the steps to profile; None for none.
        replay: that the steps are trained only to be compared and looked at; None for a run.
    """

    recipe: TrainingRecipe
    run: Path
    dataset_identity: str
    checkpoint: Path | None
    work: Path
    attempt: str
    session_started: float
    verify_checkpoint: bool = False
    warm_start: WarmStart | None = None
    profile: StepRange | None = None
    replay: ReplayOptions | None = None


@dataclass(frozen=True)
class RankContext:
    """The job of a rank, its place among the ranks, and its supervision."""

    job: RankJob
    placement: Placement
    supervision: Supervision

    @property
    def recipe(self) -> TrainingRecipe:
        return self.job.recipe

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.job.run)

    def notify(self, text: str) -> None:
        """Say what holds for all ranks, once."""
        if self.placement.rank == 0:
            self.supervision.notice(text)
