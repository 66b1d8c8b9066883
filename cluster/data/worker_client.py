"""Client of the data workers: a request goes from one worker to another until one answers.

All ranks of a node need the same layouts. They can request layouts through the agent of the node,
which sends each request once (`node_layouts.py`). If the agent is lost, the ranks send their
requests to the data workers.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    OwnerDiedError,
    RayActorError,
    RayError,
    RayTaskError,
)

from cluster.data.node_layouts import NodeSharing
from cluster.data.workers import WorkerHandle
from cluster.errors import ClusterError

# Seconds without an answer after which a worker is pinged. A worker answers pings in a separate
# thread, even while it reads.
WORKER_TIMEOUT_SECONDS = 60.0
HEARTBEAT_SECONDS = 10.0
# Seconds without an answer from the agent after which a rank sends its request to a data worker.
AGENT_SECONDS = 10.0
# Number of workers that may be lost during one request, for example for lack of memory.
MAX_RETRIES_BEFORE_ERROR = 8
# Time within which Ray restarts a dead worker.
RESTART_SECONDS = 60.0
RETRY_SECONDS = 0.1
GIVE_UP_SECONDS = 900.0


@dataclass(eq=False)
class Request:
    """A request and its pending answers.

    Attributes:
        coordinate: the epoch and the window.
        reference: the agent's pending answer, which is a reference to the data worker's answer.
        is_shared: whether the request is sent through the agent, which then owns the answer.
        asked: the data worker of each attempt, in order.
        asked_at: the time of the last attempt.
    """

    method: str
    coordinate: tuple[int, int]
    arguments: tuple[Any, ...]
    reference: Any = None
    is_shared: bool = False
    answers: list[Any] = field(default_factory=list)
    asked: list[WorkerHandle] = field(default_factory=list)
    asked_at: float = 0.0
    losses: int = 0

    def __str__(self) -> str:
        epoch, window = self.coordinate
        return f"{self.method} of window {window} of epoch {epoch}"


class WorkerClient:
    """Client that sends a request to one worker after another until one answers.

    Attributes:
        workers: the data workers; may be replaced at any time.
        sharing: access to the layouts of the node; None without an agent, or after its loss.
    """

    def __init__(
        self,
        workers: Sequence[WorkerHandle],
        notice: Callable[[str], None],
        timeout_seconds: float = WORKER_TIMEOUT_SECONDS,
    ) -> None:
        self.workers = list(workers)
        self.sharing: NodeSharing | None = None
        self.give_up_seconds = GIVE_UP_SECONDS
        # Pending pings of workers that have not answered, by worker number.
        self._absent: dict[int, Any] = {}
        self._notice = notice
        self._timeout_seconds = timeout_seconds

    def ask(self, method: str, coordinate: tuple[int, int], *arguments: Any) -> Request:
        """Send a request, and return it without waiting for the answer."""
        request = Request(method, coordinate, arguments)
        self._send(request)
        return request

    def ask_for_layout(self, epoch: int, window: int) -> Request:
        """Request the layout of a window, through the node's agent if there is one."""
        if not self.sharing:
            return self.ask("layout", (epoch, window), epoch, window)
        request = Request("layout", (epoch, window), (epoch, window), is_shared=True)
        worker = self._next_worker(request)
        request.reference = self.sharing.agent.layout.remote(
            worker.actor, self.sharing.attempt, epoch, window
        )
        return request

    def answer(self, request: Request) -> Any:
        """Return the answer to a request, or re-raise the worker's exception unchanged.

        If a request that was sent before this call has failed, send it again. Only an exception of
        a request that was sent during this call is raised.
        """
        since = time.monotonic()
        if request.is_shared:
            self._take_reference(request)
        early, _ = ray.wait(request.answers, num_returns=1, timeout=0)
        while True:
            give_up_at = since + self.give_up_seconds
            until = min(self._patient_until(request, since), give_up_at)
            timeout_seconds = max(0.0, until - time.monotonic())
            done, _ = ray.wait(request.answers, num_returns=1, timeout=timeout_seconds)
            if not done and until == give_up_at:
                raise ClusterError(
                    f"No data worker has answered for {self.give_up_seconds:g} s ({request}). "
                    "Check the nodes and the storage, then run the same command again"
                )
            if not done:
                if request.is_shared:
                    self._ask_without_agent(request)
                else:
                    self._check_liveness(request, since)
                continue
            try:
                return ray.get(done[0])
            except RayTaskError as error:
                # The answer was requested ahead of time, or for another rank, so its error may no
                # longer apply.
                if request.is_shared:
                    request.answers.remove(done[0])
                    self._ask_without_agent(request)
                elif done == early:
                    request.answers.remove(done[0])
                    self._send(request)
                else:
                    raise error.cause from error
            except OwnerDiedError:
                request.answers.remove(done[0])
                self._on_agent_lost()
                self._ask_without_agent(request)
            except (RayActorError, ObjectLostError) as error:
                request.answers.remove(done[0])
                self._on_worker_lost(request, since, error)

    def _take_reference(self, request: Request) -> None:
        """Wait until the agent returns the reference to the data worker's answer."""
        try:
            timeout_seconds = AGENT_SECONDS if self.sharing else 0
            request.answers.append(ray.get(request.reference, timeout=timeout_seconds))
        except RayError:
            self._on_agent_lost()
            self._ask_without_agent(request)

    def _patient_until(self, request: Request, since: float) -> float:
        """Return the deadline of the last attempt of a request."""
        if not request.is_shared:
            return request.asked_at + self._timeout_seconds
        return max(request.asked_at, since) + AGENT_SECONDS if self.sharing else since

    def _on_agent_lost(self) -> None:
        if self.sharing:
            self.sharing = None
            self._notice("the node's agent is lost; asking data workers for layouts without it")

    def _ask_without_agent(self, request: Request) -> None:
        request.asked.clear()
        self._send(request)

    def _check_liveness(self, request: Request, since: float) -> None:
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

    def _on_worker_lost(self, request: Request, since: float, error: Exception) -> None:
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

    def _retry(self, request: Request, reason: str) -> None:
        before = request.asked[-1]
        self._absent[before.number] = before.actor.process_id.remote()
        self._send(request)
        self._notice(
            f"data worker {before.number} {reason}; sending its request ({request}) to data worker "
            f"{request.asked[-1].number}"
        )

    def _send(self, request: Request) -> None:
        request.is_shared = False
        worker = self._next_worker(request)
        request.answers.append(getattr(worker.actor, request.method).remote(*request.arguments))

    def _next_worker(self, request: Request) -> WorkerHandle:
        """Return the window's preferred worker, and for each retry the next one."""
        workers = self._available_workers()
        epoch, window = request.coordinate
        turn = epoch * 1_000_003 + window + len(request.asked)
        worker = workers[turn % len(workers)]
        request.asked.append(worker)
        request.asked_at = time.monotonic()
        return worker

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
