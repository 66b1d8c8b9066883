"""Data workers: Ray actors that answer coordinates of the data.

A worker holds no state but a cache, and a coordinate determines its answer. So a worker that
dies is simply started again by Ray, and the requests it had not answered are repeated: no number
of the run changes. The ranks make the
requests and therefore own the returned objects, which would otherwise die with the worker.
"""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from cluster.errors import ClusterError
from data_pipeline.batch import MicroBatch
from data_pipeline.config import BatchingConfig
from data_pipeline.errors import DatasetError
from data_pipeline.plan import Cursor, slots_of_rank
from data_pipeline.stream import RankStep, Span, StepPlan, iterate_steps, spans_of_slots
from data_pipeline.window import WindowLayout, WindowReader

# Windows that are requested before the ranks reach them, and how many a worker keeps: all ranks
# ask for the same window at about the same time.
WINDOWS_AHEAD = 2
CACHED_WINDOWS = WINDOWS_AHEAD + 2
REPETITIONS = 8


# A request that kills its worker every time, say for want of memory, ends the run at last.
@ray.remote(max_restarts=-1, max_task_retries=REPETITIONS)
class DataWorker:
    """Reads, verifies and batches windows of one dataset."""

    def __init__(
        self, dataset: Path, dataset_identity: str, batching: BatchingConfig, seed: int
    ) -> None:
        self._dataset = dataset
        self._dataset_identity = dataset_identity
        self._batching = batching
        self._seed = seed
        self._open_reader: WindowReader | None = None

    def _reader(self) -> WindowReader:
        """Made when first asked, so that its errors reach who asked."""
        if self._open_reader is None:
            self._open_reader = self._open()
        return self._open_reader

    def _open(self) -> WindowReader:
        reader = WindowReader(
            self._dataset, self._batching, self._seed, cached_windows=CACHED_WINDOWS
        )
        found = reader.manifest.identity
        if found != self._dataset_identity:  # replaced while the run was training
            raise DatasetError(
                f"The dataset at {self._dataset} has manifest {found[:16]}…, the run was started "
                f"with {self._dataset_identity[:16]}…: it was prepared anew meanwhile. Restore "
                "it, or start another run"
            )
        return reader

    def layout(self, epoch: int, window: int) -> WindowLayout:
        return self._reader().layout(epoch, window)

    def fetch(self, span: Span) -> list[MicroBatch]:
        return self._reader().fetch(span.epoch, span.window, span.start, span.stop)

    def process_id(self) -> int:
        return os.getpid()


def start_data_workers(
    count: int,
    *,
    dataset: Path,
    dataset_identity: str,
    batching: BatchingConfig,
    seed: int,
    cpus: float,
) -> list[Any]:
    """Handles of new workers; they die with the driver that started them."""
    worker = DataWorker.options(num_cpus=cpus)  # type: ignore[attr-defined]
    return [worker.remote(dataset, dataset_identity, batching, seed) for _ in range(count)]


class WorkerStreams:
    """A rank's side: the endless stream of its micro-batches, asked for ahead of time."""

    def __init__(
        self, workers: list[Any], *, rank: int, ranks: int, slots: int, steps_ahead: int
    ) -> None:
        self._workers = workers
        self._slots_per_step = slots
        self._mine = slots_of_rank(rank, ranks, slots)
        self._steps_ahead = steps_ahead

    def open(self, cursor: Cursor) -> Iterator[RankStep]:
        """The rank's steps from a cursor on."""
        layouts = _Layouts(self)
        pending: deque[tuple[StepPlan, list[Any]]] = deque()
        for step in iterate_steps(layouts, cursor, self._slots_per_step):
            spans = spans_of_slots(step, self._mine)
            requests = [self.worker_of(s.epoch, s.window).fetch.remote(s) for s in spans]
            pending.append((step, requests))
            layouts.read_ahead(step.next_cursor)
            if len(pending) > self._steps_ahead:
                yield self._receive(*pending.popleft())

    def worker_of(self, epoch: int, window: int) -> Any:
        """Every rank asks the same worker for a window, which caches it for the others."""
        return self._workers[(epoch * 1_000_003 + window) % len(self._workers)]

    def _receive(self, step: StepPlan, requests: list[Any]) -> RankStep:
        parts = resolve(requests)
        return RankStep(
            slots=self._mine,
            micro_batches=[micro_batch for part in parts for micro_batch in part],
            target_tokens=step.target_tokens,
            cursor=step.cursor,
            next_cursor=step.next_cursor,
        )


class _Layouts:
    """Layouts by coordinate, and the windows after them read ahead of time."""

    def __init__(self, streams: WorkerStreams) -> None:
        self._streams = streams
        self._requests: dict[tuple[int, int], Any] = {}
        self._windows_per_epoch = 1

    def __call__(self, epoch: int, window: int) -> WindowLayout:
        layout: WindowLayout = resolve([self._request(epoch, window)])[0]
        self._windows_per_epoch = layout.windows_per_epoch
        return layout

    def read_ahead(self, cursor: Cursor) -> None:
        """Let the workers read the windows after the cursor's, if they do not yet."""
        epoch, window = cursor.epoch, cursor.window
        wanted = {(epoch, window): self._request(epoch, window)}
        for _ in range(WINDOWS_AHEAD):
            last = window + 1 == self._windows_per_epoch
            epoch, window = (epoch + 1, 0) if last else (epoch, window + 1)
            if (epoch, window) not in self._requests:
                worker = self._streams.worker_of(epoch, window)
                worker.fetch.remote(Span(epoch, window, 0, 0))  # reads its shards
            wanted[epoch, window] = self._request(epoch, window)
        self._requests = wanted

    def _request(self, epoch: int, window: int) -> Any:
        if (epoch, window) not in self._requests:
            worker = self._streams.worker_of(epoch, window)
            self._requests[epoch, window] = worker.layout.remote(epoch, window)
        return self._requests[epoch, window]


def resolve(requests: list[Any]) -> list[Any]:
    """The answers; an exception raised by a worker is raised here as it was there."""
    try:
        return list(ray.get(requests))
    except RayTaskError as error:
        raise error.cause from error
    except RayActorError as error:
        raise ClusterError(
            f"A data worker died {REPETITIONS + 1} times at the same request: {error}. Look for a "
            "lack of memory on its node; fewer batching.window_shards, in another run, need less"
        ) from error
