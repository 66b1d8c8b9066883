"""Construction of a rank's engine, for training and for a replay."""

from trainer.process.placement import Placement
from trainer.recipe import TrainingRecipe
from trainer.tasks.task import TrainingTask
from trainer.zero.engine import TrainingEngine


def build_engine(
    recipe: TrainingRecipe, task: TrainingTask, placement: Placement
) -> TrainingEngine:
    """Return the engine of one rank, with the weights of step 0.

    The process group must exist.
    """
    return TrainingEngine(
        task.build_network,
        engine=recipe.engine,
        optimizer=recipe.trainer.optimizer,
        gradient_clipping=recipe.trainer.gradient_clipping,
        loss=task.loss,
        micro_batches_per_step=recipe.batching.micro_batches_per_step,
        placement=placement,
        frozen=recipe.trainer.frozen,
    )
