"""Score a run of any task on its held-out sets, as validation does, but in a single process."""

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.config.data import DataConfig
from data_pipeline.dataset.manifest import Manifest, open_dataset
from data_pipeline.storage.store import DatasetStore
from trainer.checkpoints.checkpoint import Checkpoint
from trainer.errors import RunMismatchError
from trainer.process.placement import Placement
from trainer.scores import Scores
from trainer.tasks.task import training_task
from trainer.training.validation import Validator
from transloom.inference.trained_network import TrainedNetwork


def score_heldout(found: TrainedNetwork, dataset: DataConfig, name: str) -> Scores:
    """Return the scores of a run on a held-out set.

    Args:
        found: the run's network.
        dataset: location of the run's dataset.
        name: name of the held-out set.

    Raises:
        RunMismatchError: the run was trained on another dataset.
        DatasetError: the dataset or the held-out set does not exist.
    """
    store, manifest = dataset_of(found.checkpoint, dataset)
    task = training_task(found.recipe, manifest, found.tokenizers)
    scoring = task.scoring(load_heldout(store, manifest, name))
    validator = Validator(scoring, Placement(), found.recipe.trainer.validation_scores)
    result = validator.run(found.model)
    assert result is not None, "only a stop request returns None"
    return result.scores


def dataset_of(checkpoint: Checkpoint, dataset: DataConfig) -> tuple[DatasetStore, Manifest]:
    """Open the dataset that a checkpoint was trained on.

    Raises:
        RunMismatchError: the dataset at this location is a different one.
        DatasetError: there is no dataset at this location.
    """
    store, manifest = open_dataset(dataset)
    trained_on = checkpoint.header.dataset_identity
    if not manifest.descends_from(trained_on):
        raise RunMismatchError(
            f"The dataset at {store.location} has the manifest {manifest.identity[:16]}…, but the "
            f"checkpoint was trained on the manifest {trained_on[:16]}…. Name the run's dataset "
            "with --dataset"
        )
    return store, manifest
