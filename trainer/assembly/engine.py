"""Construction of a rank's engine, for training and for a replay."""

from dataclasses import replace

import torch

from data_pipeline.dataset.manifest import open_dataset_store
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from trainer.job.rank_job import RankContext, RankJob
from trainer.process.placement import Placement
from trainer.recipe import TrainingRecipe
from trainer.state.kernel_fingerprint import require_equal_kernels
from trainer.tasks.task import TrainingTask, training_task
from trainer.zero.compiled_layers import CompiledLayers, compile_layers
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
        UnequalKernelsError: the ranks compute with different kernels or different generated code.
    """
    if task.recipe.engine.compile == "none":
        return context, None
    compiled = compile_layers(task, context.placement)
    placement = replace(context.placement, generated_code=compiled.code)
    require_equal_kernels(task.recipe.engine, placement)
    return replace(context, placement=placement), compiled


def compile_ahead(job: RankJob, placement: Placement) -> None:
    """Compile the layers of a job in a process that may become one of its ranks."""
    torch.set_num_threads(placement.threads)
    compile_layers(task_of(job), placement)


def task_of(job: RankJob) -> TrainingTask:
    """Return the torch side of a job's task."""
    tokenizers = load_tokenizers(open_dataset_store(job.recipe.data), job.manifest)
    return training_task(job.recipe, job.manifest, tokenizers)
