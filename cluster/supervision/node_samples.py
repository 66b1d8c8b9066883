"""Now and then a line for each node of the ranks in nodes.jsonl: how busy it is.

The supervisor asks the node agents, goes on, and writes what has come when it next looks. A node
that does not answer gets no line, and is asked again once it has.
"""

import time
from collections.abc import Mapping
from typing import Protocol

from cluster.ranks.node_meter import NodeMeter
from cluster.supervision.interval import Interval
from foundation.periodic_thread import PeriodicThread
from trainer.record.metrics_file import recorded_step
from trainer.record.node_usage import NodeLine, Usage, append_usage
from trainer.runs.folder import RunFolder


class NodeUsageSource(Protocol):
    """The nodes of a group; `cluster.ranks.rank_pool.RankPool` has them."""

    def ask_usage(self) -> None:
        """Ask all of them how busy they are, without waiting."""

    def usage(self) -> dict[str, Usage]:
        """What has been answered since the last call, by the node's name."""


class NodeSampler:
    """The samples of an attempt."""

    def __init__(self, run: RunFolder, nodes: NodeUsageSource, every_seconds: float) -> None:
        """
        Args:
            every_seconds: 0 for no samples.
        """
        self._run = run
        self._nodes = nodes
        self._due = Interval(every_seconds) if every_seconds else None

    def poll(self, now: float, step: int) -> None:
        """Write what has come, and ask again if it is time.

        Args:
            now: of any clock that goes on.
            step: the last one that is recorded.
        """
        if self._due is None:
            return
        _write(self._run, self._nodes.usage(), step)
        if self._due.has_passed(now):
            self._nodes.ask_usage()


class LocalNodeSampler(PeriodicThread):
    """A thread that samples the node of a run in this process while the context lasts."""

    def __init__(self, run: RunFolder, name: str, every_seconds: float) -> None:
        """
        Args:
            name: the node's.
            every_seconds: 0 for no samples.
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
