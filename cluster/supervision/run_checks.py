"""Check that recipe, dataset, run and checkpoint belong together."""

from contextlib import suppress
from pathlib import Path

from cluster.recipe import Recipe
from cluster.supervision.run_listener import RunListener
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.window import open_mixture
from data_pipeline.dataset.manifest import Manifest, open_dataset
from data_pipeline.errors import DatasetError
from data_pipeline.preparation.quarantine import cursor_after
from data_pipeline.storage.store import DatasetStore
from run_store.checkpoints.checkpoint import Checkpoint, SavedState, newest_intact
from run_store.checkpoints.commit import set_aside
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.format import CheckpointHeader, Parent, read_header
from run_store.errors import CheckpointError, RunMismatchError
from run_store.folder import RunFolder, RunMetadata
from trainer.recipe import identity_differences
from trainer.start.opening import check_folder, open_folder
from trainer.start.warm_start import warm_start_of
from trainer.state.progress import Progress


def check_run(recipe: Recipe, run: RunFolder) -> tuple[DatasetStore, Manifest]:
    """Check that recipe, run and dataset belong together, and return the dataset.

    This writes nothing, as another process may own the run.

    Raises:
        DatasetError: the dataset does not exist, or it was prepared from other settings.
        RunMismatchError: the run has another identity, dataset or parent.
        BatchingError: the dataset's longest pair exceeds the budget.
    """
    store, manifest = open_dataset(recipe.data)
    differences = manifest.differences(recipe.data_settings)
    if differences:
        raise DatasetError(
            f"The dataset in {store.location} was prepared from other settings: "
            f"{'; '.join(differences)}. Prepare it again with --overwrite, or set data.dataset to "
            "another folder"
        )
    open_mixture(manifest, recipe.data_settings)
    check_folder(run, recipe, manifest)
    _parent(recipe, run, manifest)
    return store, manifest


def open_run(recipe: Recipe, run: RunFolder, store: DatasetStore, manifest: Manifest) -> None:
    """Start or continue the run; called by its owner, after `check_run`.

    Raises:
        RunMismatchError, CheckpointError: another process has changed the run since the check.
    """
    open_folder(run, recipe, store, manifest, _parent(recipe, run, manifest))


def _parent(recipe: Recipe, run: RunFolder, manifest: Manifest) -> Parent | None:
    pinned = run.card().parent if run.has_begun() else None
    warm_start = warm_start_of(recipe, run, manifest, pinned)
    return warm_start.parent if warm_start else None


def newest_checkpoint(
    run: RunFolder,
    work: Path,
    manifest: Manifest,
    listener: RunListener,
    *,
    read_files: bool = True,
) -> Checkpoint | None:
    """Return the checkpoint to resume from; report and rename newer checkpoints that are damaged.

    Args:
        work: the owner's work folder.
        read_files: whether to hash the checkpoint's files instead of only comparing their sizes.

    Returns:
        The newest intact checkpoint, or None if the run has no checkpoint.

    Raises:
        CheckpointError: the run has checkpoints, but none of them is intact.
        RunMismatchError: the checkpoint belongs to another run.
    """
    checkpoint, damaged = newest_intact(run.checkpoints, read_files=read_files)
    if damaged and checkpoint is None:
        raise CheckpointError(
            f"No checkpoint of {run.path} is intact: {'; '.join(damaged.values())}. Restore one "
            f"from a copy, or remove {run.checkpoints} to train from step 0 again"
        )
    for path, problem in damaged.items():
        aside = set_aside(path, work)
        listener.notice(
            f"{problem}; it was renamed to {aside.name}, and the previous checkpoint is used"
        )
    if checkpoint:
        _check_membership(checkpoint, run.card(), manifest)
    return checkpoint


def start_cursor(recipe: Recipe, manifest: Manifest, checkpoint: SavedState | None) -> Cursor:
    """Return the position in the data at which ranks continue from a checkpoint, or start.

    The driver computes it because a quarantine in the middle of a window needs all shards.

    Raises:
        DataError: see `cursor_after`.
    """
    if checkpoint is None:
        return Cursor()
    header = checkpoint.header
    saved = Cursor.from_json(header.cursor)
    return cursor_after(manifest, recipe.data_settings, header.dataset_identity, saved)


def is_run_complete(
    recipe: Recipe, run: RunFolder, work: Path, manifest: Manifest, listener: RunListener
) -> bool:
    """Return whether the run has reached its end, so that nothing must be started.

    Called by the run's owner. See `newest_checkpoint` for arguments and errors.
    """
    newest = list_checkpoints(run.checkpoints)[-1:]
    with suppress(CheckpointError):  # if the newest header is damaged, look for an intact one
        if not newest or not _is_final(read_header(newest[0]), recipe):
            return False  # skip the full read, as the ranks verify the checkpoint at their start
    checkpoint = newest_checkpoint(run, work, manifest, listener)
    return checkpoint is not None and _is_final(checkpoint.header, recipe)


def _is_final(header: CheckpointHeader, recipe: Recipe) -> bool:
    progress = Progress.of_checkpoint(header, Cursor.from_json(header.cursor))
    return progress.is_over(recipe.trainer) and not progress.validation_due


def _check_membership(checkpoint: Checkpoint, card: RunMetadata, manifest: Manifest) -> None:
    header = checkpoint.header
    differences = identity_differences(header.identity, card.identity)
    if not manifest.descends_from(header.dataset_identity):
        differences.append(
            f"manifest of the dataset: {header.dataset_identity[:16]}… in the checkpoint, "
            f"{manifest.identity[:16]}… in the dataset (if a quarantine of shards was undone "
            "in the meantime, restore the manifest that has the quarantine)"
        )
    if differences:
        raise RunMismatchError(
            f"{checkpoint.path} belongs to another run or dataset: {'; '.join(differences)}. Move "
            "the checkpoint back to the run that wrote it"
        )
