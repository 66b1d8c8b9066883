"""Which checkpoint of a run is translated with, and the change to another one.

    look into the run's folder ──▶ ahead of ours? ──▶ verify, load beside ──▶ exchange
                                                └ damaged: keep ours, and say so

A checkpoint that is damaged is read again only when its files have changed.
"""

import logging
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from foundation.errors import DataError
from model.errors import ModelError
from trainer.checkpoints.format import (
    CheckpointHeader,
    checkpoint_name,
    list_averages,
    list_checkpoints,
    read_header,
    step_of,
)
from trainer.checkpoints.retention import best
from trainer.errors import CheckpointError, TrainerError
from trainer.recipe import TrainingRecipe
from trainer.runs.folder import RunFolder
from transloom.inference.serving.settings import Follow

Loaded = TypeVar("Loaded")
Signature = tuple[tuple[str, int, int], ...]

# What loading a checkpoint may raise; each is a reason to keep the present one.
REASONS = (TrainerError, DataError, ModelError, OSError)


class Load(Protocol[Loaded]):  # type: ignore[misc]
    """Loads a checkpoint by its name for `--checkpoint`, verified."""

    def __call__(self, checkpoint: str) -> Loaded: ...


def candidates(run: RunFolder, follow: Follow) -> list[Path]:
    """Return the folders of checkpoints to try, in order of preference.

    For `newest`, checkpoints with an unreadable header come first, so that they are reported;
    averages come last.
    """
    steps = list_checkpoints(run.checkpoints)[::-1]
    if follow in ("newest", "nothing"):
        return [*steps, *reversed(list_averages(run.checkpoints))]
    paths = list_averages(run.checkpoints) if follow == "average" else steps
    headers: dict[Path, CheckpointHeader] = {}
    for path in paths:
        try:
            headers[path] = read_header(path)
        except CheckpointError:
            continue  # without a header nobody knows how good, or of which steps, it is
    if follow == "average":
        return sorted(headers, key=lambda path: headers[path].averaged_steps, reverse=True)
    if not headers:
        return []
    header = headers[max(headers, key=step_of)]
    recipe = TrainingRecipe.of_checkpoint(header.recipe, header.identity)
    return best(headers, recipe.checkpoints.best_by)


class CheckpointReloader(Generic[Loaded]):
    """What is translated with now.

    Attributes:
        current: what `load` made of the checkpoint.
        name: of its folder.
        changes: how often another one was taken up.
        damaged: what is wrong with those that were preferred to it, but could not be loaded.
    """

    def __init__(self, run: Path, follow: Follow, checkpoint: str | None, load: Load[Loaded]):
        """Load the first checkpoint.

        Args:
            checkpoint: a step or an average, which is kept to; None: the one that `follow` wants.

        Raises:
            CheckpointError: none can be loaded.
        """
        self._run, self._load = RunFolder(run), load
        self._follow: Follow = follow if checkpoint is None else "nothing"
        self._refused: dict[Path, tuple[Signature, str]] = {}
        self.changes = 0
        self.damaged: list[str] = []
        self._logged: list[str] = []
        if checkpoint is not None:
            self.current = load(checkpoint)
            self.name = next(
                path.name
                for path in (
                    *list_checkpoints(self._run.checkpoints),
                    *list_averages(self._run.checkpoints),
                )
                if checkpoint_name(path) == str(checkpoint)
            )
            return
        found = self._first_intact(None)
        if found is None:
            why = "; ".join(self.damaged) or f"there is none for --follow {follow} yet"
            raise CheckpointError(f"{run} has no checkpoint to translate with: {why}")
        self.name, self.current = found

    def reload(self) -> bool:
        """Take up a checkpoint that is ahead of the present one; whether there was one."""
        if self._follow == "nothing":
            return False
        found = self._first_intact(self.name)
        if found is None:
            return False
        self.name, self.current = found
        self.changes += 1
        return True

    def reload_and_log(self, logger: logging.Logger) -> None:
        """Look, and log a change, new problems, and whatever keeps it from looking."""
        try:
            if self.reload():
                logger.info("%s is translated with from now on", self.name)
        except Exception:  # a look that fails costs nothing but itself
            logger.exception("the run's folder could not be looked at")
        if self.damaged != self._logged:
            self._logged = self.damaged
            for problem in self._logged:
                logger.warning("%s; %s is kept", problem, self.name)

    def _first_intact(self, present: str | None) -> tuple[str, Loaded] | None:
        """The first candidate before the present one that can be loaded."""
        damaged, found = [], None
        for path in candidates(self._run, self._follow):
            if path.name == present:
                break
            signature = _signature(path)
            before = self._refused.get(path)
            if before and before[0] == signature:
                damaged.append(before[1])
                continue
            try:
                found = path.name, self._load(checkpoint_name(path))
                break
            except REASONS as error:
                if path.exists():  # else it was removed meanwhile, as those that are superfluous
                    self._refused[path] = signature, str(error)
                    damaged.append(str(error))
        self.damaged = damaged
        return found


def _signature(checkpoint: Path) -> Signature:
    """What changes when a file of a checkpoint does."""
    try:
        return tuple(
            sorted(
                (file.name, (status := file.stat()).st_size, status.st_mtime_ns)
                for file in checkpoint.iterdir()
            )
        )
    except OSError:
        return ()
