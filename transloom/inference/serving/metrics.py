"""Prometheus metrics of a server, in the OpenMetrics text format."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from transloom.inference.serving.batch import ReplicaStatus
from transloom.inference.serving.messages import ServedRun

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
SENTENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192)


class HasStatus(Protocol):
    """Object that knows the status of a run, such as a `Dispatcher`."""

    @property
    def name(self) -> str: ...

    def recent_replicas(self) -> Sequence[ReplicaStatus]: ...

    def current_status(self) -> ServedRun: ...


class ServingMetrics(Collector):
    """Counters and histograms of each run, with the label `run`, and gauges of the runs' status."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._of_a_run: list[Counter | Histogram] = []  # those with the label `run` alone
        self.requests = Counter(
            "transloom_serve_requests",
            "translation requests, by HTTP status",
            ["run", "status"],
            registry=self._registry,
        )
        self.request_seconds = self._histogram(
            "request_seconds",
            "seconds from the arrival of a successful request to its response",
            SECONDS,
        )
        self.sentences = self._counter("sentences", "translated sentences")
        self.source_tokens = self._counter("source_tokens", "source tokens of translated sentences")
        self.batch_sentences = self._histogram("batch_sentences", "sentences per batch", SENTENCES)
        self.batch_tokens = self._histogram(
            "batch_tokens", "tokens per batch, with padding", TOKENS
        )
        self.batch_seconds = self._histogram(
            "batch_seconds", "seconds from sending a batch to receiving its translations", SECONDS
        )
        self.lost_batches = self._counter(
            "lost_batches", "batches that were lost with their replica and translated again"
        )

    def _counter(self, name: str, meaning: str) -> Counter:
        counter = Counter(f"transloom_serve_{name}", meaning, ["run"], registry=self._registry)
        self._of_a_run.append(counter)
        return counter

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
        histogram = Histogram(
            f"transloom_serve_{name}", meaning, ["run"], buckets=buckets, registry=self._registry
        )
        self._of_a_run.append(histogram)
        return histogram

    def expect(self, runs: Sequence[HasStatus]) -> None:
        """Register the runs: their counters start at 0, and each scrape reads their status."""
        for run in runs:
            for metric in self._of_a_run:
                metric.labels(run.name)
            self.requests.labels(run.name, "200")
        self._runs = runs
        self._registry.register(self)

    def text(self) -> bytes:
        """Return all metrics as OpenMetrics text."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges of the runs' status; the registry calls this for each scrape."""
        gauges = {
            name: GaugeMetricFamily(f"transloom_serve_{name}", help_, labels=["run"])
            for name, help_ in {
                "waiting_sentences": "sentences that wait for a replica",
                "replicas": "replicas that reported recently",
                "ready": "1 if at least one replica reported recently, 0 otherwise",
                "checkpoint_step": "step of the served checkpoint, or the lowest step of several",
                "checkpoint_changes": "number of times that replicas loaded another checkpoint",
                "damaged_checkpoints": "newer checkpoints that replicas could not load",
            }.items()
        }
        for run in self._runs:
            now, replicas = run.current_status(), run.recent_replicas()
            values = {
                "waiting_sentences": now.waiting_sentences,
                "replicas": now.replicas,
                "ready": now.ready,
                "checkpoint_changes": sum(replica.changes for replica in replicas),
                "damaged_checkpoints": len(now.damaged),
            }
            for name, value in values.items():
                gauges[name].add_metric([now.name], float(value))
            if replicas:
                step = min(replica.step for replica in replicas)
                gauges["checkpoint_step"].add_metric([now.name], float(step))
        return gauges.values()
