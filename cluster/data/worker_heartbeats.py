"""Heartbeats of the data workers, for the displays of a run; polling never blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.data.workers import WorkerHandle, WorkerStatistics

# Displays show a worker as dead after this time without an answer.
HEARTBEAT_TIMEOUT_SECONDS = 10.0


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
