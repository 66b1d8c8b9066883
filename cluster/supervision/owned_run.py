"""Own a run: the part that training under Ray and training in one process have in common.

For a run in an object store, this includes the mirror and the ranks' nodes. Nodes that share the
driver's folder, such as the driver's node, need nothing. Each other node pulls the run before an
attempt. During the attempt, it uploads the files that the ranks write there. The driver collects
the names of their objects, and the mirror enters them in the run's head:

    rank ──file──▶ node's folder ──agent──▶ object store ──mirror──▶ driver's folder

A checkpoint is published only after names were collected in a round that began when all files of
the checkpoint were complete. So the record in the object store has all steps up to the newest
checkpoint.
"""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.errors import RankLostError
from cluster.ranks.node_mirror import RANK_FILES, SHARED_RANK_FILES
from cluster.ranks.rank_pool import RankPool
from cluster.recipe import Recipe
from cluster.supervision.invocation import current_start
from cluster.supervision.run_checks import open_run
from cluster.supervision.run_listener import RunListener
from cluster.supervision.status_writer import StatusWriter
from cluster.supervision.stop_requests import StopRequests
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from run_store.checkpoints.format import CheckpointHeader
from run_store.checkpoints.state_objects import PartList
from run_store.folder import RunFolder
from run_store.lease import RENEW_SECONDS, Lease

if TYPE_CHECKING:
    from run_store.remote.mirror import RunMirror

COLLECT_SECONDS = 1.0  # interval of collections while a checkpoint waits to be published
# Longest wait for the object store and the nodes at the beginning and end of an attempt.
FLUSH_SECONDS = 60.0
LAST_COLLECTION_SECONDS = 15.0
POLL_SECONDS = 0.05


class RemoteRun:
    """Publisher of a run's checkpoints, and collector of the files that its ranks write."""

    def __init__(self, mirror: "RunMirror", supply: RankPool) -> None:
        self.mirror = mirror
        self._supply = supply
        self._separate: set[str] = set()  # nodes with separate folders
        self._first_node = ""  # the node of rank 0
        self._answers: dict[str, Any] = {}
        self._began = 0.0  # when the current collection began
        self._is_partial = False  # whether a node has not answered the current collection
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
        self._separate, problems = self._supply.pull_run(work.name, separate - first, first)
        return problems

    def poll(self) -> None:
        """Record the files that nodes have uploaded, and request the next uploads."""
        for node, answer in list(self._answers.items()):
            if ray.wait([answer], timeout=0)[0]:
                del self._answers[node]
                self._take(node, answer)
        if self._separate and not self._answers:
            self._forward_publications()
            seconds = COLLECT_SECONDS if self._waiting else RENEW_SECONDS
            if time.monotonic() - self._began >= seconds:
                self._begin_collection()

    def collect_finally(self) -> None:
        """Collect the last files of the ranks, for a limited time, after the ranks have ended."""
        now = time.monotonic()
        self._began = now - RENEW_SECONDS
        while self._separate and time.monotonic() < now + LAST_COLLECTION_SECONDS:
            self.poll()
            if self._began > now and not self._answers and not self._is_partial:
                break
            time.sleep(POLL_SECONDS)
        self._began = time.monotonic()
        if self._first_node not in self._answers:
            self._forward_publications()
        self._separate = set()

    def publish(self, folder: str, header: CheckpointHeader, parts: PartList) -> None:
        if self._separate:
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
        options = (self.mirror.number, {*self.mirror.unavailable})
        for node in self._separate:
            names = RANK_FILES if node == self._first_node else SHARED_RANK_FILES
            self._answers[node] = self._supply.upload_changes(node, names, *options)

    def _take(self, node: str, answer: Any) -> None:
        try:
            self.mirror.add(*ray.get(answer, timeout=0))
        except RayTaskError as error:  # such as an object store that does not answer
            self._is_partial = True
            text = f"the files of a node's ranks are not in {self.mirror.url} yet: {error.cause}"
            self.mirror.tell_once(node, text)
        except RayError:  # the node is lost, which ends the attempt soon
            self._separate.remove(node)
            if node == self._first_node:  # without its record, nothing may be published
                self._waiting.clear()

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
    from run_store.remote.mirror import RunMirror  # imports obstore

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
        StatusWriter(run, lease, listener) as status,  # exits last, when the log is complete
        listener.logging(),
    ):
        status.stop_reason = lambda: stop.reason
        stop.forget_file()
        open_run(recipe, run, store, manifest)
        status.run_opens(recipe.model_dump(mode="json"), current_start())
        yield OwnedRun(recipe, manifest, run, lease, mirror, stop, listener, status)
        if order := stop.late_order():
            listener.notice(order)
