"""Floating-point operations of a step, from the first window of a dataset."""

from dataclasses import dataclass

from cluster.recipe import Recipe
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from data_pipeline.tokenizers.tokenizer import load_tokenizers

MOST_MICRO_BATCHES = 1_000  # some 20 µs each


@dataclass(frozen=True)
class StepFlops:
    """Operations of a step, forward and backward, of all ranks; see `model.flops`.

    Attributes:
        micro_batches: those that a step's operations are extrapolated from.
    """

    model: float
    hardware: float
    micro_batches: int


def estimate_flops(recipe: Recipe, store: DatasetStore, manifest: Manifest) -> StepFlops | None:
    """Return the operations of a mean step; None if the task or its network does not count them.

    Raises:
        DatasetFileError: a shard cannot be read.
    """
    from trainer.tasks.task import training_task  # imports torch

    reader = WindowReader(store, manifest, recipe.data_settings)
    count = min(MOST_MICRO_BATCHES, len(reader.layout(0, 0).units))
    task = training_task(recipe.training(), manifest, load_tokenizers(store, manifest))
    found = [task.flops(micro_batch) for micro_batch in reader.fetch(0, 0, 0, count)]
    counted = [flops for flops in found if flops is not None]
    if not counted:
        return None
    share = recipe.batching.micro_batches_per_step / len(counted)
    return StepFlops(
        model=share * sum(flops.model for flops in counted),
        hardware=share * sum(flops.hardware for flops in counted),
        micro_batches=len(counted),
    )
