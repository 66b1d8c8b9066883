"""A rank's stream of micro-batches, prefetched from any live data worker.

    cursor ──layouts──▶ plans of steps ──▶ requests ahead, bounded in bytes ──▶ RankStep

All ranks request a window from the same worker, which caches the window for the other ranks. When a
worker dies or does not answer, the request goes to another worker. Every worker gives the same
answer, because an answer depends only on its request.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayTaskError

from cluster.data.workers import WorkerHandle
from cluster.errors import ClusterError
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.plan import Cursor, slots_of_rank
from data_pipeline.batching.stream import (
    RankStep,
    Span,
    StepPlan,
    iterate_steps,
    next_window,
    spans_of_slots,
)
from data_pipeline.batching.window import WindowLayout
from data_pipeline.errors import DatasetFileError

# Maximum number of windows to request before the ranks reach them, if their bytes allow it.
WINDOWS_AHEAD = 2
# Seconds without an answer after which a worker is pinged. A worker answers pings in a separate
# thread, even while it reads.
WORKER_TIMEOUT_SECONDS = 60.0
HEARTBEAT_SECONDS = 10.0
# Number of workers that may be lost during one request, for example for lack of memory.
MAX_RETRIES_BEFORE_ERROR = 8
# Time within which Ray restarts a dead worker.
RESTART_SECONDS = 60.0
RETRY_SECONDS = 0.1
GIVE_UP_SECONDS = 900.0


@dataclass(eq=False)
class _Request:
    """A request and its pending answers."""

    method: str
    coordinate: tuple[int, int]  # epoch and window
    arguments: tuple[Any, ...]
    answers: list[Any] = field(default_factory=list)
    asked: list[WorkerHandle] = field(default_factory=list)  # one entry per attempt
    asked_at: float = 0.0  # time of the last attempt
    losses: int = 0

    def __str__(self) -> str:
        epoch, window = self.coordinate
        return f"{self.method} of window {window} of epoch {epoch}"


class WorkerClient:
    """Client that sends a request to one worker after another until one answers."""

    def __init__(
        self,
        workers: Sequence[WorkerHandle],
        notice: Callable[[str], None],
        timeout_seconds: float = WORKER_TIMEOUT_SECONDS,
    ) -> None:
        self.workers = list(workers)  # may be replaced at any time
        self.give_up_seconds = GIVE_UP_SECONDS
        self._absent: dict[
            int, Any
        ] = {}  # pending pings of workers that gave no answer, by worker number
        self._notice = notice
        self._timeout_seconds = timeout_seconds

    def ask(self, method: str, coordinate: tuple[int, int], *arguments: Any) -> _Request:
        request = _Request(method, coordinate, arguments)
        self._send(request)
        return request

    def answer(self, request: _Request) -> Any:
        """Return the answer to a request, or re-raise the worker's exception unchanged."""
        since = time.monotonic()
        early, _ = ray.wait(request.answers, num_returns=1, timeout=0)
        while True:
            give_up_at = since + self.give_up_seconds
            until = min(request.asked_at + self._timeout_seconds, give_up_at)
            timeout_seconds = max(0.0, until - time.monotonic())
            done, _ = ray.wait(request.answers, num_returns=1, timeout=timeout_seconds)
            if not done and until == give_up_at:
                raise ClusterError(
                    f"No data worker has answered for {self.give_up_seconds:g} s ({request}). "
                    "Check the nodes and the storage, then run the same command again"
                )
            if not done:
                self._check_liveness(request, since)
                continue
            try:
                return ray.get(done[0])
            except RayTaskError as error:
                if done != early or not isinstance(error.cause, DatasetFileError):
                    raise error.cause from error
                # The answer was requested ahead of time, so its error may no longer apply.
                request.answers.remove(done[0])
                self._send(request)
            except (RayActorError, ObjectLostError) as error:
                request.answers.remove(done[0])
                self._on_worker_lost(request, since, error)

    def _check_liveness(self, request: _Request, since: float) -> None:
        """Ping a silent worker, which may either hang or be reading from a slow server."""
        worker = request.asked[-1]
        try:
            ray.get(worker.actor.process_id.remote(), timeout=self._ping_timeout_seconds)
            request.asked_at = time.monotonic()
        except GetTimeoutError:
            ray.kill(worker.actor, no_restart=False)
            self._retry(request, f"has not answered for {self._timeout_seconds:.0f} s and hangs")
        except RayActorError as error:
            self._on_worker_lost(request, since, error)

    @property
    def _ping_timeout_seconds(self) -> float:
        return min(HEARTBEAT_SECONDS, self._timeout_seconds)

    def _on_worker_lost(self, request: _Request, since: float, error: Exception) -> None:
        waiting = time.monotonic() - since
        request.losses += 1
        if request.losses > MAX_RETRIES_BEFORE_ERROR and waiting > RESTART_SECONDS:
            raise ClusterError(
                f"Data workers were lost {request.losses} times within {waiting:.0f} s during the "
                f"same request ({request}): {error}. Check whether their nodes ran out of memory. "
                "A lower batching.window_shards needs less memory, but requires a new run"
            ) from error
        if not request.answers:
            if request.losses > 1:
                time.sleep(RETRY_SECONDS)
                self._send(request)
            else:
                self._retry(request, "was lost")

    def _retry(self, request: _Request, reason: str) -> None:
        before = request.asked[-1]
        self._absent[before.number] = before.actor.process_id.remote()
        self._send(request)
        self._notice(
            f"data worker {before.number} {reason}; sending its request ({request}) to data worker "
            f"{request.asked[-1].number}"
        )

    def _send(self, request: _Request) -> None:
        """Send a request to the window's preferred worker; each retry goes to the next worker."""
        workers = self._available_workers()
        epoch, window = request.coordinate
        turn = epoch * 1_000_003 + window + len(request.asked)
        worker = workers[turn % len(workers)]
        request.asked.append(worker)
        request.asked_at = time.monotonic()
        request.answers.append(getattr(worker.actor, request.method).remote(*request.arguments))

    def _available_workers(self) -> list[WorkerHandle]:
        """Return the workers that are not known to be absent, or all workers if all are absent."""
        workers = self.workers
        for worker in workers:
            sign = self._absent.get(worker.number)
            if sign is not None and ray.wait([sign], timeout=0)[0]:
                try:
                    ray.get(sign)
                    del self._absent[worker.number]
                except RayActorError:
                    self._absent[worker.number] = worker.actor.process_id.remote()
        return [w for w in workers if w.number not in self._absent] or workers


class WorkerStreams:
    """Endless stream of a rank's micro-batches."""

    def __init__(
        self,
        client: WorkerClient,
        *,
        rank: int,
        ranks: int,
        slots: int,
        steps_ahead: int,
        bytes_ahead: int,
    ) -> None:
        """Initialize the stream of one rank.

        Args:
            bytes_ahead: limit on the bytes requested ahead of time. It applies separately to steps
                and to windows.
        """
        self._client = client
        self._slots_per_step = slots
        self._mine = slots_of_rank(rank, ranks, slots)
        self._steps_ahead = steps_ahead
        self._bytes_ahead = bytes_ahead

    def open(self, cursor: Cursor) -> Iterator[RankStep]:
        """Yield the rank's steps, starting at a cursor."""
        layouts = _Layouts(self._client, self._bytes_ahead)
        plans = iterate_steps(layouts, cursor, self._slots_per_step)
        pending: deque[tuple[StepPlan, list[_Request], int]] = deque()
        while True:
            while not pending or (
                len(pending) <= self._steps_ahead
                and sum(size for _, _, size in pending) < self._bytes_ahead
            ):
                step = next(plans)
                spans = spans_of_slots(step, self._mine)
                requests = [self._client.ask("fetch", (s.epoch, s.window), s) for s in spans]
                pending.append((step, requests, sum(layouts.bytes_of(span) for span in spans)))
                layouts.read_ahead(step.cursor, step.next_cursor)
            step, requests, _ = pending.popleft()
            yield self._receive(step, requests)

    def _receive(self, step: StepPlan, requests: list[_Request]) -> RankStep:
        parts: list[list[MicroBatch]] = [self._client.answer(request) for request in requests]
        return RankStep(
            slots=self._mine,
            micro_batches=[micro_batch for part in parts for micro_batch in part],
            slot_units=step.slot_units,
            cursor=step.cursor,
            next_cursor=step.next_cursor,
            request=partial(self._request, step),
        )

    def _request(self, step: StepPlan, slot: int) -> Callable[[], MicroBatch]:
        """Request the micro-batch of one slot, which may belong to another rank."""
        (span,) = spans_of_slots(step, range(slot, slot + 1))
        request = self._client.ask("fetch", (span.epoch, span.window), span)

        def received() -> MicroBatch:
            (micro_batch,) = self._client.answer(request)
            return cast(MicroBatch, micro_batch)

        return received


class _Layouts:
    """Cache of window layouts by epoch and window; it also requests the following windows early."""

    def __init__(self, client: WorkerClient, bytes_ahead: int) -> None:
        self._client = client
        self._bytes_ahead = bytes_ahead
        self._requests: dict[tuple[int, int], _Request] = {}
        self._known: dict[tuple[int, int], WindowLayout] = {}

    def __call__(self, epoch: int, window: int) -> WindowLayout:
        if (epoch, window) not in self._known:
            request = self._request(epoch, window)
            self._known[epoch, window] = self._client.answer(request)
        return self._known[epoch, window]

    def bytes_of(self, span: Span) -> int:
        layout = self._known[span.epoch, span.window]
        return int(layout.bytes[span.start : span.stop].sum())

    def read_ahead(self, current: Cursor, following: Cursor) -> None:
        """Let workers read the windows after those of a step, and forget earlier windows."""
        layout = self._known[current.epoch, current.window]
        # Assume that all windows are as large as this one, which is nearly true.
        window_bytes = max(1, int(layout.bytes.sum()))
        ahead = min(WINDOWS_AHEAD, self._bytes_ahead // window_bytes - 1)
        wanted = {(current.epoch, current.window), (following.epoch, following.window)}
        position = following
        for _ in range(ahead):
            position = next_window(position, layout.windows_per_epoch)
            self._request(position.epoch, position.window)
            wanted.add((position.epoch, position.window))
        self._requests = {key: self._requests[key] for key in self._requests.keys() & wanted}
        self._known = {key: self._known[key] for key in self._known.keys() & wanted}

    def _request(self, epoch: int, window: int) -> _Request:
        if (epoch, window) not in self._requests:
            request = self._client.ask("layout", (epoch, window), epoch, window)
            self._requests[epoch, window] = request
        return self._requests[epoch, window]
