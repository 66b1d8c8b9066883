"""Signs of life of the data workers, for whoever looks at a run. Nothing waits for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.data.workers import WorkerHandle, WorkerStatistics

# Without an answer for so long, a worker is shown as one that does not live.
HEARTBEAT_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class WorkerHeartbeat:
    """What is known of a worker.

    Attributes:
        statistics: those of its last answer; None before the first.
        silent_seconds: since that answer, or since it was first asked.
    """

    number: int
    statistics: WorkerStatistics | None
    silent_seconds: float

    @property
    def is_alive(self) -> bool:
        return self.silent_seconds < HEARTBEAT_TIMEOUT_SECONDS


class WorkerMonitor:
    """Asks each worker what it has done, and once it has answered, again."""

    def __init__(self) -> None:
        self._asked: dict[int, Any] = {}  # questions under way, by the worker's number
        self._answers: dict[int, WorkerStatistics] = {}
        self._heard: dict[int, float] = {}

    def poll(self, workers: Sequence[WorkerHandle], now: float) -> list[WorkerHeartbeat]:
        """Take the answers that have come, and ask again who has answered."""
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
                pass  # it is being started again
        self._asked[number] = worker.actor.statistics.remote()
