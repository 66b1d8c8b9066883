"""Construction of a rank's engine, for training and for a replay."""

from dataclasses import replace

from trainer.job.rank_job import RankContext
from trainer.process.placement import Placement
from trainer.recipe import TrainingRecipe
from trainer.tasks.task import TrainingTask
from trainer.zero.compiled_layers import CompiledLayers, compile_layers, require_equal_code
from trainer.zero.engine import TrainingEngine


def build_engine(
    recipe: TrainingRecipe,
    task: TrainingTask,
    placement: Placement,
    compiled: CompiledLayers | None = None,
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
        compiled=compiled,
    )


def with_compiled_layers(
    context: RankContext, task: TrainingTask
) -> tuple[RankContext, CompiledLayers | None]:
    """Compile the layers if the recipe says so, and add the code's hash to the placement.

    A collective.

    Raises:
        EngineError: the layers cannot be compiled here.
        UnequalKernelsError: the compiler has generated other code on another rank.
    """
    if task.recipe.engine.compile == "none":
        return context, None
    compiled = compile_layers(task, context.placement)
    require_equal_code(compiled, context.placement)
    placement = replace(context.placement, generated_code=compiled.code)
    return replace(context, placement=placement), compiled
