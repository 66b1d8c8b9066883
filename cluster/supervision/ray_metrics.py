"""Export a run's numbers to Ray's metrics endpoint, named as in `run_store.record.run_metrics`.

A thread of the driver reads the numbers from the run folder, as often as Ray collects them, so that
training never waits for the export. An embedded Ray has no such endpoint.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.util.metrics import Gauge

from foundation.periodic_thread import PeriodicThread
from run_store.record.run_metrics import RUN_METRICS, SLOW_RANK_FACTOR, run_values

EXPORT_SECONDS = 10.0  # Ray's own interval (metrics_report_interval_ms)
END_SECONDS = 2.0


class RayMetrics(PeriodicThread):
    """Thread that reports the numbers of a run to Ray while the context lasts."""

    def __init__(self, run: Path, address: str | None) -> None:
        """Prepare the thread without starting it.

        Args:
            address: address of the cluster, or None for an embedded Ray, which gets no metrics.
        """
        # Wait at most END_SECONDS for the thread, which may hang on unavailable storage.
        interval_seconds = EXPORT_SECONDS if address is not None else None
        super().__init__("metrics", interval_seconds, self._tell, join_seconds=END_SECONDS)
        self._run = run
        self._gauges: dict[str, Any] = {}
        self._slow_ranks: list[dict[str, str]] = []  # labels of the last export

    def _tell(self) -> None:
        with suppress(Exception):  # the run continues after any error here
            self._export()

    def _export(self) -> None:
        values = run_values(self._run)
        for name, labels, value in values:
            if name not in self._gauges:
                self._gauges[name] = Gauge(name, RUN_METRICS[name], tuple(labels))
            self._gauges[name].set(value, labels)
        slow_ranks = [labels for name, labels, _ in values if name == SLOW_RANK_FACTOR]
        for labels in self._slow_ranks:
            if labels not in slow_ranks:  # Ray keeps the last value of each label set
                self._gauges[SLOW_RANK_FACTOR].set(0.0, labels)
        self._slow_ranks = slow_ranks
