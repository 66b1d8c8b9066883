"""Own a run: the part that training under Ray and training in one process have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.recipe import Recipe
from cluster.supervision.remote_run import mirror_of
from cluster.supervision.run_checks import open_run
from cluster.supervision.run_listener import RunListener
from cluster.supervision.stop_requests import StopRequests
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from trainer.checkpoints.lease import Lease
from trainer.runs.folder import RunFolder

if TYPE_CHECKING:
    from trainer.runs.remote.mirror import RunMirror


@dataclass(frozen=True)
class OwnedRun:
    """A run that this process owns.

    Attributes:
        mirror: the mirror in the run's object store; None for a run in a folder.
    """

    recipe: Recipe
    manifest: Manifest
    folder: RunFolder
    lease: Lease
    mirror: "RunMirror | None"
    stop: StopRequests
    listener: RunListener


@contextmanager
def own_run(
    recipe: Recipe, run: RunFolder, store: DatasetStore, manifest: Manifest, listener: RunListener
) -> Iterator[OwnedRun]:
    """Own a run while the context lasts, and start or continue it.

    Raises:
        RunInUseError: another process trains the run.
        RunMismatchError, CheckpointError, ObjectStoreError: the run cannot be opened.
    """
    with (
        StopRequests(run) as stop,
        Lease(run.path, listener.notice) as lease,
        mirror_of(run, lease, listener.notice) as mirror,
        listener.logging(),
    ):
        stop.forget_file()
        open_run(recipe, run, store, manifest)
        yield OwnedRun(recipe, manifest, run, lease, mirror, stop, listener)
