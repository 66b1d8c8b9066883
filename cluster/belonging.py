"""Whether recipe, dataset, run and checkpoint belong together."""

from cluster.audience import Audience
from cluster.recipe import Recipe
from data_pipeline.dataset.manifest import Manifest, open_dataset
from data_pipeline.dataset.store import DatasetStore
from data_pipeline.errors import DatasetError
from data_pipeline.feeding.window import open_mixture
from trainer.checkpoints.format import Checkpoint, newest_intact, set_aside
from trainer.errors import CheckpointError, RunMismatchError
from trainer.inheritance import inheritance_of
from trainer.recipe import identity_differences
from trainer.run_folder import RunCard, RunFolder


def prepare_run(recipe: Recipe, run: RunFolder, command: str) -> tuple[DatasetStore, Manifest]:
    """The run's dataset, after checking that it is the recipe's and the run the dataset's.

    Raises:
        DatasetError: there is no dataset, or it was prepared from other settings.
        RunMismatchError: the run has another identity, dataset or checkpoint.
        BatchingError: the dataset's longest pair exceeds the budget.
    """
    store, manifest = open_dataset(recipe.data)
    differences = manifest.differences(recipe.data, recipe.tokenizer)
    if differences:
        raise DatasetError(
            f"The dataset in {store.location} was prepared from other settings: "
            f"{'; '.join(differences)}. Prepare it again with --overwrite, or set data.dataset to "
            "another folder"
        )
    open_mixture(manifest, recipe.data_settings)
    inheritance = inheritance_of(recipe, run, manifest)
    parent = inheritance.parent if inheritance else None
    run.open(recipe, store, manifest, command, parent)
    return store, manifest


def newest_checkpoint(run: RunFolder, manifest: Manifest, audience: Audience) -> Checkpoint | None:
    """Where the run goes on; damaged checkpoints are named and set aside.

    Raises:
        CheckpointError: all are damaged; starting from step 0 is not done unasked.
        RunMismatchError: the checkpoint is of another run.
    """
    checkpoint, damaged = newest_intact(run.checkpoints)
    if damaged and checkpoint is None:
        raise CheckpointError(
            f"No checkpoint of {run.path} is intact: {'; '.join(damaged.values())}. Restore one "
            f"from a copy, or remove {run.checkpoints} to train from step 0 again"
        )
    for path, problem in damaged.items():
        aside = set_aside(path)
        audience.notice(f"{problem}; it is now {aside.name}, and the one before it is used")
    if checkpoint:
        _check_membership(checkpoint, run.card(), manifest)
    return checkpoint


def _check_membership(checkpoint: Checkpoint, card: RunCard, manifest: Manifest) -> None:
    header = checkpoint.header
    differences = identity_differences(header.identity, card.identity)
    if not manifest.descends_from(header.dataset_identity):
        differences.append(
            f"manifest of the dataset: {header.dataset_identity[:16]}… in the checkpoint, "
            f"{manifest.identity[:16]}… in the dataset (if shards were quarantined in between "
            "and are not any more, put that manifest back)"
        )
    if differences:
        raise RunMismatchError(
            f"{checkpoint.path} belongs to another run or dataset, move it back there: "
            f"{'; '.join(differences)}"
        )
