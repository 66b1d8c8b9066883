"""Kill the processes of a run after a chosen step, and observe its supervisor."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest
import ray

from cluster.data.workers import DataWorkers
from run_store.record.metrics_file import read_metrics


class Saboteur:
    """Sender of a signal to processes when a run has recorded a step.

    The run must continue for long enough. With `support.cluster.strike.Strike`, in contrast, the
    run waits for the action.
    """

    def __init__(
        self,
        metrics: Path,
        step: int,
        victims: Callable[[], list[int]],
        signal_number: int = signal.SIGKILL,
    ) -> None:
        self.hit: list[int] = []
        self._metrics = metrics
        self._step = step
        self._victims = victims
        self._signal = signal_number
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(0.02):
            if any(line.step >= self._step for line in read_metrics(self._metrics)[-3:]):
                for process_id in self._victims():
                    kill(process_id, self._signal)
                    self.hit.append(process_id)
                return


def kill(process_id: int, signal_number: int = signal.SIGKILL) -> None:
    os.kill(process_id, signal_number)


def process_ids(workers: DataWorkers) -> list[int]:
    """Return the process ids of all data workers of a run."""
    return list(ray.get([handle.actor.process_id.remote() for handle in workers.handles]))


def remember(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[Any]:
    """Record the results of a module's function from now on, without changing its behaviour."""
    made: list[Any] = []
    original = getattr(module, name)

    def recording(*arguments: Any, **options: Any) -> Any:
        made.append(original(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(module, name, recording)
    return made
