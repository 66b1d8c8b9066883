"""Data workers: Ray actors that return the data at a coordinate.

A worker has no state except a cache, and a coordinate determines its answer. Workers may therefore
die, restart, join and leave during training without any effect on the run's numbers. The ranks make
the requests (see streams.py) and therefore own the returned objects. Objects owned by a worker
would be lost when it dies.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.errors import ClusterError
from cluster.health.watchdog import Watchdog
from cluster.packages import digest_of_sources, other_sources
from cluster.ray.cluster_view import Node
from cluster.ray.environment_file import read_environment
from cluster.ray.reservation import room
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.stream import Span
from data_pipeline.batching.window import WindowLayout, WindowReader
from data_pipeline.config.data import DataSettings
from data_pipeline.dataset.manifest import open_dataset

# Displays show a worker as dead after this time without an answer.
HEARTBEAT_SECONDS = 1.0
HEARTBEAT_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class WorkerStatistics:
    """Process id, node and work of a worker since its process started."""

    process_id: int
    node: str
    windows_read: int


# Ray does not retry requests. The requesting rank repeats a request, and logs each repetition.
@ray.remote(max_restarts=-1, max_task_retries=0, concurrency_groups={"control": 1})
class DataWorker:
    """Actor that reads, verifies and batches windows of one dataset."""

    def __init__(
        self, settings: DataSettings, dataset_identity: str, cache_bytes: int, sources: str
    ) -> None:
        """Initialize the worker; the first request opens the dataset.

        Args:
            sources: digest of the driver's transloom sources; those of this process must have the
                same digest.
        """
        read_environment()
        self._watchdog = Watchdog()
        self._settings = settings
        self._dataset_identity = dataset_identity
        self._cache_bytes = cache_bytes
        self._sources = sources
        self._open_reader: WindowReader | None = None

    def _reader(self) -> WindowReader:
        """Return the reader.

        The first request opens the reader, so that the rank receives any error.
        """
        if self._open_reader is None:
            self._open_reader = self._open()
        return self._open_reader

    def _open(self) -> WindowReader:
        if (found := digest_of_sources()) != self._sources:
            name = f"A data worker on node {ray.util.get_node_ip_address()}"
            raise ClusterError(other_sources(name, found, self._sources, "batch"))
        store, manifest = open_dataset(self._settings.data, self._dataset_identity)
        return WindowReader(store, manifest, self._settings, self._cache_bytes)

    def layout(self, epoch: int, window: int) -> WindowLayout:
        return self._reader().layout(epoch, window)

    def fetch(self, span: Span) -> list[MicroBatch]:
        return self._reader().fetch(span.epoch, span.window, span.start, span.stop)

    @ray.method(concurrency_group="control")
    def heartbeat(self) -> None:
        """Record that the supervisor is alive."""
        self._watchdog.heartbeat()

    @ray.method(concurrency_group="control")
    def process_id(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="control")
    def statistics(self) -> WorkerStatistics:
        reader = self._open_reader
        return WorkerStatistics(
            process_id=os.getpid(),
            node=ray.get_runtime_context().get_node_id()[:8],
            windows_read=reader.windows_read if reader else 0,
        )


@dataclass(frozen=True)
class WorkerHandle:
    """Reference to a data worker, with the number that identifies the worker in messages."""

    number: int
    actor: Any


@dataclass(frozen=True)
class WorkerHeartbeat:
    """Latest known state of a data worker.

    Attributes:
        statistics: statistics in the worker's last answer, or None before the first answer.
        silent_seconds: time since the worker's last answer or, before its first answer, since the
            first request.
    """

    number: int
    statistics: WorkerStatistics | None
    silent_seconds: float

    @property
    def is_alive(self) -> bool:
        return self.silent_seconds < HEARTBEAT_TIMEOUT_SECONDS


class WorkerMonitor:
    """Poller of the workers' statistics, with one pending request per worker."""

    def __init__(self) -> None:
        self._asked: dict[int, Any] = {}  # pending requests, by the worker's number
        self._answers: dict[int, WorkerStatistics] = {}
        self._heard: dict[int, float] = {}

    def poll(self, workers: Sequence[WorkerHandle], now: float) -> list[WorkerHeartbeat]:
        """Collect the answers that have arrived, and send the next request to these workers."""
        for number in self._heard.keys() - {worker.number for worker in workers}:
            self._asked.pop(number, None), self._answers.pop(number, None)
            del self._heard[number]
        for worker in workers:
            self._ask(worker, now)
        return [
            WorkerHeartbeat(
                worker.number,
                self._answers.get(worker.number),
                max(0.0, now - self._heard[worker.number]),
            )
            for worker in workers
        ]

    def _ask(self, worker: WorkerHandle, now: float) -> None:
        number = worker.number
        self._heard.setdefault(number, now)
        if number in self._asked:
            if not ray.wait([self._asked[number]], timeout=0)[0]:
                return
            try:
                self._answers[number] = ray.get(self._asked[number])
                self._heard[number] = now
            except RayError:
                pass  # Ray is restarting the worker
        self._asked[number] = worker.actor.statistics.remote()


class DataWorkers:
    """Pool of the data workers of a run, owned and resized by the supervisor.

    The workers end with the driver that started them, or when its heartbeats cease.
    """

    def __init__(
        self, settings: DataSettings, dataset_identity: str, *, cpus: float, cache_bytes: int
    ) -> None:
        self._arguments = (settings, dataset_identity, cache_bytes, digest_of_sources())
        self._cpus = cpus
        self._started = 0
        self._starting: list[tuple[WorkerHandle, Any]] = []  # each with its pending first answer
        self._leaving: list[WorkerHandle] = []
        self.handles: list[WorkerHandle] = []  # workers that ranks may use

    def start(self, count: int) -> None:
        """Start the first workers without waiting for them."""
        self.handles = [self._new() for _ in range(count)]

    @property
    def actors(self) -> list[Any]:
        """All workers that may be alive; may be called from any thread."""
        starting = [handle for handle, _ in self._starting]
        return [handle.actor for handle in (*self.handles, *starting, *self._leaving)]

    def resize(self, count: int, nodes: Iterable[Node]) -> int:
        """Scale to `count` workers.

        New workers serve after their first answer. Surplus workers end after the requests that they
        have already received.

        Returns:
            The current number of workers, which is less than `count` if the nodes lack capacity.
        """
        missing = count - len(self.handles) - len(self._starting)
        if self._cpus:
            places = sum(room(node.free, {"CPU": self._cpus}) for node in nodes)
            missing = min(missing, places)
        for _ in range(missing):
            handle = self._new()
            self._starting.append((handle, handle.actor.process_id.remote()))
        for _ in range(-missing):
            handle = self._starting.pop()[0] if self._starting else self.handles.pop()
            handle.actor.__ray_terminate__.remote()  # ends after the requests already received
            self._leaving.append(handle)
        return len(self.handles) + len(self._starting)

    def cancel_starting(self) -> int:
        """Kill the workers that do not serve yet, and return their number.

        They may hold resources that ranks need to start.
        """
        given_up, self._starting = self._starting, []
        for handle, _ in given_up:
            ray.kill(handle.actor)
        return len(given_up)

    def admit(self) -> None:
        """Make new workers available to the ranks once they have given their first answer."""
        answers = [answer for _, answer in self._starting]
        ready, _ = ray.wait(answers, num_returns=len(answers), timeout=0) if answers else ([], [])
        joined = [handle for handle, answer in self._starting if answer in ready]
        self._starting = [entry for entry in self._starting if entry[0] not in joined]
        self.handles += joined

    def all_responsive(self) -> bool:
        """Return whether all workers are running and answer within `HEARTBEAT_SECONDS`."""
        signs = [handle.actor.process_id.remote() for handle in self.handles]
        ready, _ = ray.wait(signs, num_returns=len(signs), timeout=HEARTBEAT_SECONDS)
        return len(ready) == len(signs)

    def windows_read_text(self) -> str:
        """Return the number of windows that each worker has read, as text."""
        parts = [_describe(handle) for handle in self.handles]
        return f"windows read by data workers since their start: {', '.join(parts)}"

    def _new(self) -> WorkerHandle:
        actor = DataWorker.options(num_cpus=self._cpus).remote(*self._arguments)  # type: ignore[attr-defined]
        self._started += 1
        return WorkerHandle(self._started - 1, actor)


def _describe(handle: WorkerHandle) -> str:
    try:
        facts: WorkerStatistics = ray.get(handle.actor.statistics.remote(), timeout=1)
    except RayError:
        return f"worker {handle.number} does not answer"
    return (
        f"worker {handle.number} (process {facts.process_id}, node {facts.node}) "
        f"{facts.windows_read}"
    )


def worker_numbers(handles: Sequence[WorkerHandle]) -> str:
    return ", ".join(map(str, sorted(handle.number for handle in handles)))
