"""Reload the served checkpoint when a checkpoint that `--follow` prefers is complete.

    read the run folder ──▶ preferred checkpoint? ──▶ verify and load it ──▶ serve it from now on
                                                   └ damaged: report it, and keep the current one

A damaged checkpoint is read again only if its files have changed.
"""

from collections.abc import Callable
from pathlib import Path

from foundation.errors import DataError
from foundation.untrusted_text import logger_of
from model.errors import ModelError
from run_store.checkpoints.folder_names import (
    checkpoint_name,
    list_averages,
    list_checkpoints,
    step_of,
)
from run_store.checkpoints.retention import best
from run_store.errors import CheckpointError, RunError
from run_store.folder import RunFolder
from run_store.record.followed_run import Signature, signature_of
from run_store.remote.pull import RunView
from run_store.remote.views import is_listed
from trainer.recipe import TrainingRecipe
from transloom.inference.chosen_checkpoint import checkpoint_path, readable_headers
from transloom.inference.serving.settings import ReplicaSettings
from transloom.inference.translator import Translator

# Signatures of a checkpoint's files.
Signatures = tuple[tuple[Path, Signature | None], ...]

logger = logger_of(__name__)

# Errors when loading a checkpoint. After each of these, the current checkpoint stays in use.
REASONS = (RunError, DataError, ModelError, OSError)


def candidates(settings: ReplicaSettings) -> list[Path]:
    """Return the folders of checkpoints to try, in order of preference.

    For `newest`, checkpoints with an unreadable header are included, so that they are reported;
    averages come last. For `best` and `average`, checkpoints with an unreadable header are left
    out.

    Raises:
        CheckpointError: the run does not have the checkpoint that the settings name.
    """
    run, follow = RunFolder(settings.run), settings.follow
    if settings.checkpoint is not None:
        return [checkpoint_path(run, settings.checkpoint)]
    steps = list_checkpoints(run.checkpoints)[::-1]
    if follow in ("newest", "nothing"):
        return [*steps, *reversed(list_averages(run.checkpoints))]
    # A checkpoint cannot be ranked without its scores and averaged steps.
    headers = readable_headers(list_averages(run.checkpoints) if follow == "average" else steps)
    if follow == "average":
        return sorted(headers, key=lambda path: headers[path].averaged_steps, reverse=True)
    if not headers:
        return []
    header = headers[max(headers, key=step_of)]
    recipe = TrainingRecipe.of_checkpoint(header.recipe, header.identity)
    return best(headers, recipe.checkpoints.best_by)


class CheckpointReloader:
    """Served checkpoint, which is replaced when a preferred checkpoint is complete.

    Attributes:
        current: the served checkpoint, as loaded by `load`.
        changes: number of reloads.
        damaged: problems of preferred checkpoints that could not be loaded.
    """

    def __init__(self, settings: ReplicaSettings, load: Callable[[str], Translator]) -> None:
        """Load the first checkpoint.

        Args:
            load: loads and verifies a checkpoint, given its name as for `--checkpoint`.

        Raises:
            CheckpointError: no checkpoint can be loaded.
        """
        self._settings, self._load = settings, load
        self._view = RunView(settings.url, is_listed) if settings.url else None
        self._refused: dict[Path, tuple[Signatures, str]] = {}
        self.changes = 0
        self.damaged: list[str] = []
        found = self._first_intact(None)
        if found is None:
            why = "; ".join(self.damaged) or f"it has none for --follow {settings.follow} yet"
            raise CheckpointError(f"{settings.run} has no checkpoint to translate with: {why}")
        self.current = found

    @property
    def name(self) -> str:
        """Name of the served checkpoint's folder."""
        return self.current.checkpoint.path.name

    def reload(self) -> None:
        """Load a checkpoint that is preferred to the current one, if there is one.

        A change of checkpoint and new problems are logged.
        """
        if self._settings.checkpoint is not None or self._settings.follow == "nothing":
            return
        known, found = self.damaged, None
        try:
            found = self._first_intact(self.name)
        except REASONS as error:
            self.damaged = [str(error)]
        for problem in set(self.damaged) - set(known):
            logger.warning("%s. This replica keeps %s", problem, self.name)
        if found is not None:
            self.current = found
            self.changes += 1
            logger.info("now translating with %s", self.name)

    def _first_intact(self, present: str | None) -> Translator | None:
        """Load the first intact checkpoint that is preferred to the current one.

        Args:
            present: name of the current checkpoint, or None if no checkpoint is loaded.

        Returns:
            The loaded checkpoint, or None if no preferred checkpoint can be loaded.
        """
        if self._view is not None:
            self._view.refresh()
        damaged, found = [], None
        for path in candidates(self._settings):
            if path.name == present:
                break
            signature = tuple((file, signature_of(file)) for file in sorted(path.glob("*")))
            before = self._refused.get(path)
            if before and before[0] == signature:
                damaged.append(before[1])
                continue
            try:
                found = self._load(checkpoint_name(path))
                break
            except REASONS as error:
                if path.exists():  # if not, retention has just removed the checkpoint
                    self._refused[path] = signature, str(error)
                    damaged.append(str(error))
        self.damaged = damaged
        return found
