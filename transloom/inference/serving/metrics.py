"""Prometheus metrics of a server, in the OpenMetrics text format."""

import math
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

from transloom.inference.serving.messages import ServedRun
from transloom.inference.serving.replica import ReplicaStatus

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
SENTENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192)


# Meaning of each gauge, and its value from the status of a run and of its replicas.
GAUGES: dict[str, tuple[str, Callable[[ServedRun, Sequence[ReplicaStatus]], float]]] = {
    "waiting_sentences": (
        "sentences that wait for a replica",
        lambda run, _: run.waiting_sentences,
    ),
    "replicas": ("replicas that are ready", lambda run, _: run.replicas),
    "ready": ("1 if at least one replica is ready, 0 otherwise", lambda run, _: run.ready),
    "checkpoint_step": (
        "step of the served checkpoint, or the lowest step of several; NaN without a replica",
        lambda _, replicas: min((one.step for one in replicas), default=math.nan),
    ),
    "checkpoint_changes": (
        "number of times that replicas loaded another checkpoint",
        lambda _, replicas: sum(one.changes for one in replicas),
    ),
    "damaged_checkpoints": (
        "newer checkpoints that replicas could not load",
        lambda run, _: len(run.damaged),
    ),
}


class ServingMetrics:
    """Counters and histograms of each run, with the label `run`, and gauges of the runs' status."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._of_a_run: list[Counter | Histogram] = []  # metrics whose only label is `run`
        self._gauges = {
            name: Gauge(f"transloom_serve_{name}", meaning, ["run"], registry=self._registry)
            for name, (meaning, _) in GAUGES.items()
        }
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

    def expect(self, runs: Iterable[str]) -> None:
        """Register the names of the runs, whose counters start at 0."""
        for run in runs:
            for metric in self._of_a_run:
                metric.labels(run)
            self.requests.labels(run, "200")

    def text(self, runs: Iterable[tuple[ServedRun, Sequence[ReplicaStatus]]]) -> bytes:
        """Return all metrics as OpenMetrics text, given the status of each run and its replicas."""
        for run, replicas in runs:
            for name, (_, value) in GAUGES.items():
                self._gauges[name].labels(run.name).set(value(run, replicas))
        return generate_latest(self._registry)
