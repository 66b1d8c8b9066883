"""The settings in which two runs differ, for `transloom compare`."""

from pathlib import Path
from typing import Any

from cluster.errors import ClusterError
from cluster.recipe import Recipe, walk_fields
from foundation.built_in_tasks import DEFAULT_TASK
from foundation.section import change_class
from trainer.checkpoints.format import Parent
from trainer.recipe import differing_identity, recipe_class
from trainer.record.run_settings import settings_of
from trainer.runs.folder import RunCard, RunFolder
from trainer.task_kinds import NETWORKS, TASKS

Difference = tuple[Any, Any]


def recipe_differences(first: Path, second: Path) -> dict[str, Difference]:
    """Return the identity and continuable settings that differ, with both values.

    Continuable settings are those of each run's last start. No extension is loaded.

    Raises:
        RunMismatchError: one of the folders has no run.
        ClusterError: a run's recipe cannot be read.
    """
    ours, theirs = (RunFolder(folder).card() for folder in (first, second))
    found: dict[str, Difference] = dict(differing_identity(ours.identity, theirs.identity))
    if ours.dataset_identity != theirs.dataset_identity:
        found["dataset manifest"] = ours.dataset_identity, theirs.dataset_identity
    if ours.parent != theirs.parent:
        found["first weights"] = _origin(ours.parent), _origin(theirs.parent)
    names = _continuable(ours) & _continuable(theirs)
    before, after = (_settings(folder) for folder in (first, second))
    for name in before.keys() & after.keys() & names:
        if before[name] != after[name]:
            found[name] = before[name], after[name]
    return dict(sorted(found.items(), key=lambda item: (item[0] != "seed", item[0])))


def _continuable(card: RunCard) -> set[str]:
    """Return the names of a run's continuable settings, as far as its task is known here."""
    task = str(card.identity.get("task", DEFAULT_TASK))
    network = card.identity.get("model.network")
    network = None if network is None else str(network)
    known = task in TASKS and (network is None or network in NETWORKS)
    recipe = recipe_class(Recipe, task, network) if known else Recipe
    return {n for n, field in walk_fields(recipe) if change_class(field) == "continuable"}


def _settings(run: Path) -> dict[str, Any]:
    file = RunFolder(run).recipe
    try:
        return settings_of(file)
    except (OSError, ValueError) as error:
        raise ClusterError(f"{file} cannot be read: {error}. Restore it from a copy") from error


def _origin(parent: Parent | None) -> str:
    return "random" if parent is None else f"{parent.run_id}@{parent.step}"
