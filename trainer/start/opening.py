"""Opening of a run folder for training, and the check that a recipe belongs to it."""

import secrets
from contextlib import suppress

from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.regular_files import write_atomically
from data_pipeline.storage.store import MANIFEST_NAME, DatasetStore
from foundation.strict_yaml import dump_yaml
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.format import Parent, read_header
from run_store.errors import CheckpointError, RunMismatchError
from run_store.folder import RunFolder, RunMetadata
from trainer.recipe import TrainingRecipe, identity_differences, identity_of


def check_folder(run: RunFolder, recipe: TrainingRecipe, manifest: Manifest) -> None:
    """Check that a folder has no started run, or that its run has this recipe and dataset.

    Raises:
        RunMismatchError: the folder's run was started with another identity or dataset, or
            holds imported weights.
    """
    if run.has_begun():
        _check_origin(run)
        _check(run, run.card(), recipe, manifest)


def open_folder(
    run: RunFolder,
    recipe: TrainingRecipe,
    store: DatasetStore,
    manifest: Manifest,
    parent: Parent | None = None,
) -> None:
    """Start a run in its folder, or continue it; only the run's owner may call it.

    Args:
        run: the folder.
        recipe: the resolved recipe.
        store: the dataset's files, from which the tokenizers are copied.
        manifest: the manifest of the dataset.
        parent: the origin of a new run's first weights, or None without a warm start.

    Raises:
        RunMismatchError: the folder's run was started with another identity or dataset, or
            holds imported weights.
    """
    check_folder(run, recipe, manifest)
    run.stop_request.parent.mkdir(parents=True, exist_ok=True)
    if not run.has_begun():
        card = RunMetadata(
            id=secrets.token_hex(4),
            name=run.path.name,
            dataset_identity=manifest.identity,
            identity=identity_of(recipe),
            parent=parent,
        )
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        _keep_tokenizers(run, store, manifest)
        write_atomically(run.card_path, card.model_dump_json(indent=1) + "\n")
    write_atomically(run.recipe, dump_yaml(recipe.model_dump(mode="json")))


def _keep_tokenizers(run: RunFolder, store: DatasetStore, manifest: Manifest) -> None:
    run.dataset.mkdir(exist_ok=True)
    write_atomically(run.dataset / MANIFEST_NAME, store.read_manifest())
    for info in [*manifest.columns_files(), *manifest.tokenizers.values()]:
        write_atomically(run.dataset / info.file, store.read(info.file, info.sha256))


def _check_origin(run: RunFolder) -> None:
    with suppress(CheckpointError):  # a damaged checkpoint is reported when training resumes
        for newest in list_checkpoints(run.checkpoints)[-1:]:
            if source := read_header(newest).imported_from:
                raise RunMismatchError(
                    f"{run.path} holds weights that were imported from {source} without an "
                    "optimizer's state, so training cannot resume from them. Start another run "
                    f"from these weights with trainer.init_from={run.path}"
                )


def _check(run: RunFolder, card: RunMetadata, recipe: TrainingRecipe, manifest: Manifest) -> None:
    differences = identity_differences(card.identity, identity_of(recipe))
    if differences:
        raise RunMismatchError(
            f"The run in {run.path} was started with other settings (there) than those of the "
            f"recipe (here): {'; '.join(differences)}. Restore the settings to continue the "
            "run. To start another run, add --run PATH, or give the changes as KEY=VALUE "
            "without --run"
        )
    if not manifest.descends_from(card.dataset_identity):
        raise RunMismatchError(
            f"The run in {run.path} was started with a dataset of identity "
            f"{card.dataset_identity[:16]}…, but the dataset at {recipe.data.dataset} has "
            f"identity {manifest.identity[:16]}…. Set data.dataset to the run's dataset, or "
            "start another run with --run PATH"
        )
