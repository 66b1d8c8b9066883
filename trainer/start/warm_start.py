"""Start of a new run from existing weights: `trainer.init_from: RUN[@STEP]` or `FOLDER`.

The new run takes only the weights, or their moving average if the old run keeps one. It has its own
data, schedule, moments and step numbers. The new run stores the hash of the checkpoint, and later
starts require the same hash. For a model's folder, it stores a hash of the files
(`trainer.start.model_folder`). `trainer.state.restore` defines which weights a network of another
kind takes.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import open_store
from foundation.wording import join_items
from run_store.checkpoints.checkpoint import Checkpoint, newest_intact
from run_store.checkpoints.folder_names import list_averages, list_checkpoints, step_of
from run_store.checkpoints.format import HEADER, Parent
from run_store.errors import CheckpointError, RunMismatchError
from run_store.folder import RunFolder
from run_store.remote.local_copy import local_copy
from trainer.recipe import TrainingRecipe
from trainer.start.model_folder import is_model_folder, origin_of


@dataclass(frozen=True)
class WarmStart:
    """Origin of a new run's first weights.

    Attributes:
        path: the path of the checkpoint or model folder that has the weights.
        url: the URL of the old run if it is in an object store; `path` is then in the driver's copy
            of the run.
    """

    parent: Parent
    path: Path
    url: str | None = None

    def checkpoint(self) -> Checkpoint:
        """Return the old run's checkpoint, also on a node without the driver's folders."""
        path = self.path
        if self.url:
            path = RunFolder(local_copy(self.url)).checkpoints / path.name
        return Checkpoint(path)


def warm_start_of(
    recipe: TrainingRecipe, run: RunFolder, manifest: Manifest, pinned: Parent | None
) -> WarmStart | None:
    """Return the verified origin of the first weights of a run.

    Args:
        recipe: the recipe of the run.
        run: the folder of the run.
        manifest: the manifest of the run's dataset; its tokenizers must be those of the old run.
        pinned: the parent that the run has stored, or None if the run has not started.

    Returns:
        The origin, or None if the run starts from random weights or resumes from a checkpoint.

    Raises:
        RunMismatchError: there is no such run, it has another vocabulary, or its checkpoint is not
            the pinned one.
        CheckpointError: the old run has no such checkpoint, or the checkpoint is damaged.
        ModelError, TokenizerError: a model's folder cannot be read.
    """
    if recipe.trainer.init_from is None or list_checkpoints(run.checkpoints):
        return None
    folder = Path(recipe.trainer.init_from)
    if is_model_folder(folder):
        origin = origin_of(folder, manifest)
        _require_pinned(run, pinned, origin, folder)
        return WarmStart(parent=origin, path=folder.absolute())
    old, step = _parse(recipe.trainer.init_from)
    checkpoint = _find(old, pinned.step if pinned else step)
    found = Parent(
        run_id=old.card().id,
        step=checkpoint.step,
        sha256=hashlib.sha256((checkpoint.path / HEADER).read_bytes()).hexdigest(),
    )
    _require_pinned(run, pinned, found, checkpoint.path)
    _require_same_pieces(old, manifest)
    return WarmStart(parent=found, path=checkpoint.path.absolute(), url=old.url)


def _require_pinned(run: RunFolder, pinned: Parent | None, found: Parent, path: Path) -> None:
    if pinned and found != pinned:
        raise RunMismatchError(
            f"{run.path} was started from step {pinned.step} of {pinned.run_id} with sha256 "
            f"{pinned.sha256[:16]}…, but {path} is step {found.step} of {found.run_id} with sha256 "
            f"{found.sha256[:16]}…. Restore the original, or start another run with --run PATH"
        )


def _parse(reference: str) -> tuple[RunFolder, int | None]:
    path, at, step = reference.rpartition("@")
    if at and step.isdecimal() and not Path(reference).exists():
        return RunFolder(local_copy(path)), int(step)
    return RunFolder(local_copy(reference)), None


def _find(run: RunFolder, step: int | None) -> Checkpoint:
    run.card()
    if step is None:
        checkpoint, damaged = newest_intact(run.checkpoints)
        if checkpoint is None:
            reason = "; ".join(damaged.values()) or (
                f"{averages[-1].name} is an average, from which no run can start"
                if (averages := list_averages(run.checkpoints))
                else "the run has not reached its first checkpoint"
            )
            raise CheckpointError(
                f"trainer.init_from: {run.path} has no usable checkpoint: {reason}. Name a run "
                "with an intact checkpoint"
            )
        return checkpoint
    steps = {step_of(path): path for path in list_checkpoints(run.checkpoints)}
    if step not in steps:
        raise CheckpointError(
            f"trainer.init_from: {run.path} has no checkpoint of step {step}. Name one of the "
            f"steps with a checkpoint: {join_items(sorted(steps))}"
        )
    checkpoint = Checkpoint(steps[step])
    checkpoint.verify_before_reading()
    return checkpoint


def _require_same_pieces(run: RunFolder, manifest: Manifest) -> None:
    """Require the same pieces in both runs, because each row of an embedding belongs to a piece.

    The tokenizer of a field must equal the tokenizer of the old run's field of the same name. If
    the old run has no such field, all fields of the old run must share one tokenizer, and the
    tokenizer of the field must equal it.
    """
    theirs = Manifest.load(open_store(run.dataset)).tokenizers
    shared = next(iter(theirs.values())) if len({t.sha256 for t in theirs.values()}) == 1 else None
    for side, ours in manifest.tokenizers.items():
        old = theirs.get(side, shared)
        if old is None or old.sha256 != ours.sha256:
            raise RunMismatchError(
                f"trainer.init_from: the {side} tokenizer of {run.path} has sha256 "
                f"{old.sha256[:16] + '…' if old else 'none'}, but that of the dataset has "
                f"{ours.sha256[:16]}…, so the embeddings would belong to other pieces. Prepare the "
                "new dataset with the old run's tokenizer, or train from random weights"
            )
