"""What the parts of a rank have in common."""

from dataclasses import dataclass

from trainer.placement import Placement
from trainer.rank_job import RankJob
from trainer.recipe import TrainingRecipe
from trainer.runs.folder import RunFolder
from trainer.supervision import Supervision


@dataclass(frozen=True)
class RankContext:
    """What a rank is to do, which of the ranks it is, and whom it tells."""

    job: RankJob
    placement: Placement
    supervision: Supervision

    @property
    def recipe(self) -> TrainingRecipe:
        return self.job.recipe

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.job.run)
