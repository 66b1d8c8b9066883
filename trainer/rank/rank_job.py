"""Job of every rank of an attempt, and the context that its parts share."""

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
    """Run that the ranks train, and the state from which they start.

    Attributes:
        recipe: the resolved recipe.
        run: the run's folder.
        dataset_identity: the identity of the manifest to train on.
        checkpoint: the complete checkpoint to resume from; None starts at step 0.
        verify_checkpoint: whether the ranks verify the hashes of the checkpoint's files while they
            build the engine. False if the supervisor has already verified them.
        work: the owner's work folder, see `trainer.checkpoints.lease`.
        attempt: the supervisor's name for this start of the ranks.
        session_started: when the run's owner started, in seconds since the epoch.
        warm_start: the weights of step 0; None for random ones.
        profile: the steps to profile, or None.
        replay: the options of a replay, whose steps are only compared and inspected; None for a
            run.
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
    """Job of a rank, its placement, and its supervision."""

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
        """Send a notice that applies to all ranks; only rank 0 sends it, so users see it once."""
        if self.placement.rank == 0:
            self.supervision.notice(text)
