"""Own a run: the part that training under Ray and training in one process have in common.

For a run in an object store, this includes the mirror and the ranks' nodes. Nodes that share the
driver's folder, such as the driver's node, need nothing. Each other node pulls the run before an
attempt. During the attempt, the driver collects the files that the ranks write there, and the
mirror uploads them:

    rank ──file──▶ node's folder ──agent──▶ driver's folder ──mirror──▶ object store

A checkpoint is published only after a collection that began when all of its parts were complete. So
the record in the object store has all steps up to the newest checkpoint.
"""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from cluster.errors import RankLostError
from cluster.ranks.node_mirror import RANK_FILES, SHARED_RANK_FILES, FileChange, SentFile
from cluster.ranks.rank_pool import RankPool
from cluster.recipe import Recipe
from cluster.supervision.invocation import current_start
from cluster.supervision.run_checks import open_run
from cluster.supervision.run_listener import RunListener
from cluster.supervision.status_writer import StatusWriter
from cluster.supervision.stop_requests import StopRequests
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from trainer.checkpoints.format import CheckpointHeader
from trainer.checkpoints.lease import Lease
from trainer.checkpoints.state_objects import PartList
from trainer.runs.folder import RunFolder

if TYPE_CHECKING:
    from trainer.runs.remote.mirror import RunMirror

COLLECT_SECONDS = 1.0
# Longest wait for the object store and the nodes at the beginning and end of an attempt.
FLUSH_SECONDS = 60.0
LAST_COLLECTION_SECONDS = 15.0
POLL_SECONDS = 0.05


class RemoteRun:
    """Publisher of a run's checkpoints, and collector of the files that its ranks write."""

    def __init__(self, mirror: "RunMirror", run: RunFolder, supply: RankPool) -> None:
        self.mirror = mirror
        self._run = run
        self._supply = supply
        self._known: dict[str, dict[str, SentFile]] = {}  # of each node with a separate folder
        self._first_node = ""  # of rank 0
        self._answers: dict[str, Any] = {}
        self._began = 0.0  # when the current collection began
        self._is_partial = False  # whether the current collection has left something out
        self._waiting: list[tuple[float, str, CheckpointHeader, PartList]] = []

    @property
    def states_url(self) -> str:
        return self.mirror.states_url

    def prepare_nodes(self, nodes: list[str], work: Path) -> list[str]:
        """Prepare the nodes of the ranks, in rank order; return the problems of nodes.

        Raises:
            RankLostError: the object store does not answer.
        """
        self._waiting.clear()
        self._answers.clear()
        self._first_node = nodes[0]
        separate = self._supply.separate_nodes(nodes)
        give_up = self._supply.give_up
        if separate and not self.mirror.flush(FLUSH_SECONDS, give_up):
            if give_up():
                return []
            self.mirror.check()
            raise RankLostError(
                f"{self.mirror.url} has not received the run's record within {FLUSH_SECONDS:.0f} s,"
                " so the ranks on other nodes cannot start"
            )
        first = {nodes[0]} & separate
        self._known, problems = self._supply.pull_run(work.name, separate - first, first)
        return problems

    def poll(self) -> None:
        """Apply the changes that nodes have sent, and request the next ones."""
        for node, answer in list(self._answers.items()):
            if ray.wait([answer], timeout=0)[0]:
                del self._answers[node]
                self._apply(node, answer)
        if self._known and not self._answers:
            self._forward_publications()
            if self._is_partial or time.monotonic() - self._began >= COLLECT_SECONDS:
                self._begin_collection()

    def collect_finally(self) -> None:
        """Collect the last files of the ranks, for a limited time, after the ranks have ended."""
        now = time.monotonic()
        while self._known and time.monotonic() < now + LAST_COLLECTION_SECONDS:
            self.poll()
            if self._began > now and not self._answers and not self._is_partial:
                break
            time.sleep(POLL_SECONDS)
        self._began = time.monotonic()
        if not self._is_partial:
            self._forward_publications()
        self._known = {}

    def publish(self, folder: str, header: CheckpointHeader, parts: PartList) -> None:
        if self._known:
            self._waiting.append((time.monotonic(), folder, header, parts))
        else:
            self.mirror.publish(folder, header, parts)

    def retract(self, step: int) -> None:
        self._waiting = [waiting for waiting in self._waiting if waiting[2].step != step]
        self.mirror.retract(step)

    def take_published(self) -> list[str]:
        self.poll()
        return self.mirror.take_published()

    def remove(self, names: Collection[str]) -> None:
        self.mirror.remove(names)

    def begin_attempt(self, attempt: str) -> None:
        self.mirror.begin_attempt(attempt)

    def _begin_collection(self) -> None:
        self._began, self._is_partial = time.monotonic(), False
        for node, known in self._known.items():
            names = RANK_FILES if node == self._first_node else SHARED_RANK_FILES
            self._answers[node] = self._supply.changed_files(node, known, names)

    def _apply(self, node: str, answer: Any) -> None:
        changes: list[FileChange]
        try:
            changes, is_all = ray.get(answer, timeout=0)
        except RayError:  # the node is lost, which ends the attempt soon
            del self._known[node]
            if node == self._first_node:  # without its record, nothing may be published
                self._waiting.clear()
            return
        self._is_partial |= not is_all
        for change in changes:
            try:
                change.apply(self._run.path)
            except OSError:  # begin again with the whole file
                self._known[node].pop(change.name, None)
                self._is_partial = True
            else:
                self._known[node][change.name] = change.stamp

    def _forward_publications(self) -> None:
        """Publish checkpoints that were complete when the finished collection began."""
        if self._is_partial:
            return
        ready = [waiting for waiting in self._waiting if waiting[0] < self._began]
        self._waiting = [waiting for waiting in self._waiting if waiting[0] >= self._began]
        for _, folder, header, parts in ready:
            with suppress(OSError):
                self.mirror.publish(folder, header, parts)


@contextmanager
def mirror_of(
    run: RunFolder, lease: Lease, announce: Callable[[str], None]
) -> Iterator["RunMirror | None"]:
    """Own a run in its object store for as long as the context lasts; None for other runs.

    Args:
        lease: the lease of the local folder, whose checks then include the object store.

    Raises:
        RunInUseError: another process owns the run.
        RunMismatchError: the object store cannot hold runs.
        ObjectStoreError: the object store cannot be reached or written.
    """
    if run.url is None:
        yield None
        return
    from trainer.runs.remote.mirror import RunMirror  # imports obstore

    with RunMirror(run.url, run, announce, lease.owner) as mirror:
        lease.require(mirror.check)
        yield mirror


@dataclass(frozen=True)
class OwnedRun:
    """A run that this process owns.

    Attributes:
        mirror: the mirror in the run's object store; None for a run in a folder.
        status: the writer of the run's status.
    """

    recipe: Recipe
    manifest: Manifest
    folder: RunFolder
    lease: Lease
    mirror: "RunMirror | None"
    stop: StopRequests
    listener: RunListener
    status: StatusWriter


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
        StatusWriter(run, lease, listener) as status,  # writes last, when the log has the end
        listener.logging(),
    ):
        status.stop_reason = lambda: stop.reason
        stop.forget_file()
        open_run(recipe, run, store, manifest)
        status.run_opens(recipe.model_dump(mode="json"), current_start())
        yield OwnedRun(recipe, manifest, run, lease, mirror, stop, listener, status)
        if order := stop.late_order():
            listener.notice(order)
