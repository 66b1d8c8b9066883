"""Write periodic lines with the utilization of each node of the ranks to nodes.jsonl.

The supervisor sends requests to the node agents without waiting, and writes the answers at a later
poll. A node that does not answer gets no line, and no new request until it has answered.
"""

import time
from collections.abc import Mapping
from typing import Protocol

from cluster.ranks.node_meter import NodeMeter
from cluster.supervision.interval import Interval
from foundation.periodic_thread import PeriodicThread
from run_store.folder import RunFolder
from run_store.record.metrics_file import recorded_step
from run_store.record.node_usage import NodeLine, Usage, append_usage


class NodeUsageSource(Protocol):
    """Source of the utilization of a group's nodes, such as `cluster.ranks.rank_pool.RankPool`."""

    def ask_usage(self) -> None:
        """Request the utilization of all nodes, without waiting."""

    def usage(self) -> dict[str, Usage]:
        """Return the answers since the last call, by the node's name."""


class NodeSampler:
    """Sampler of the utilization of an attempt's nodes."""

    def __init__(self, run: RunFolder, nodes: NodeUsageSource, every_seconds: float) -> None:
        """Create a sampler, which samples when polled.

        Args:
            every_seconds: interval of the samples, or 0 for no samples.
        """
        self._run = run
        self._nodes = nodes
        self._due = Interval(every_seconds) if every_seconds else None

    def poll(self, now: float, step: int) -> None:
        """Write the answers that have arrived, and send new requests if they are due.

        Args:
            now: seconds of any monotonic clock.
            step: the last recorded step.
        """
        if self._due is None:
            return
        _write(self._run, self._nodes.usage(), step)
        if self._due.has_passed(now):
            self._nodes.ask_usage()


class LocalNodeSampler(PeriodicThread):
    """Thread that samples the node of a run in this process while the context lasts."""

    def __init__(self, run: RunFolder, name: str, every_seconds: float) -> None:
        """Prepare the thread without starting it.

        Args:
            name: the node's name.
            every_seconds: interval of the samples, or 0 for no samples.
        """
        super().__init__("node samples", every_seconds, self._sample, join_seconds=0.0)
        self._run = run
        self._name = name
        self._meter = NodeMeter()

    def _sample(self) -> None:
        step = recorded_step(self._run.metrics)
        _write(self._run, {self._name: self._meter.sample()}, step)


def _write(run: RunFolder, usage: Mapping[str, Usage], step: int) -> None:
    if usage:
        now = time.time()
        append_usage(run.nodes, [NodeLine.of(found, now, step, n) for n, found in usage.items()])
