"""The numbers of a run at Ray's metrics endpoint, by the names of `trainer.tracking.run_metrics`.

A thread of the driver reads them from the run's folder, as often as Ray takes them, so that nothing
of the training waits for it. An embedded Ray has no such endpoint.
"""

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ray.util.metrics import Gauge

from trainer.tracking.run_metrics import RUN_METRICS, run_values

EXPORT_SECONDS = 10.0  # Ray's own interval (metrics_report_interval_ms)
END_SECONDS = 2.0


class RayMetrics:
    """Tells Ray the numbers of a run while the context lasts."""

    def __init__(self, run: Path, address: str | None) -> None:
        """
        Args:
            address: of the cluster; None for an embedded Ray.
        """
        self._run = run
        self._wanted = address is not None
        self._over = threading.Event()
        self._gauges: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._work, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        if self._wanted:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._wanted:
            self._thread.join(END_SECONDS)  # it may hang on a storage that is away

    def _work(self) -> None:
        while not self._over.wait(EXPORT_SECONDS):
            with suppress(Exception):  # whatever it is, the run goes on
                self._export()

    def _export(self) -> None:
        for name, labels, value in run_values(self._run):
            if name not in self._gauges:
                self._gauges[name] = Gauge(name, RUN_METRICS[name], tuple(labels))
            self._gauges[name].set(value, labels)
