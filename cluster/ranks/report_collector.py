"""Collect the ranks' reports in the driver, with one pending request per node.

    index     processes of ranks and spares by node; each gets the address of its agent
    collect   answers that have arrived ─▶ what is new of each process; then the next requests
    take      what is new, for the group

A process is *linked* while the newest answer of its agent is recent and reports heartbeats of
the process. The driver calls all other processes directly.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayError

from cluster.ranks.agent_client import NodeAgents, arrived_answers
from cluster.ranks.agent_link import AgentAddress
from cluster.ranks.linked_ranks import LISTEN_SECONDS, NodeReports
from cluster.ranks.process import RankProcess
from cluster.ranks.reports import ReportBatch

INDEX_SECONDS = 0.5
RETRY_SECONDS = 0.5
# Age of an agent's answer, and of a rank's heartbeat in it, with which the driver makes direct
# calls again.
SILENT_SECONDS = LISTEN_SECONDS * 4


@dataclass(frozen=True)
class LinkedReports:
    """News of a process from its agent.

    Attributes:
        silent_seconds: the time since its last heartbeat; `SILENT_SECONDS` if unknown.
        batches: its reports, some of which may have come before.
    """

    process: RankProcess
    silent_seconds: float
    batches: list[ReportBatch]


class _Node:
    """State of a node's agent and processes, as the driver knows it."""

    def __init__(self) -> None:
        self.pending: Any = None
        self.ask_at = 0.0
        self.answered_at = 0.0
        self.address: AgentAddress | None = None
        self.processes: dict[int, RankProcess] = {}
        self.linked: frozenset[RankProcess] = frozenset()


class ReportCollector:
    """Collector of reports from the agents of all nodes; no method blocks.

    Attributes:
        linked: the processes whose reports come from their agents.
        dead: processes whose end an agent has reported.
    """

    def __init__(
        self,
        agents: NodeAgents,
        processes: Callable[[], Iterable[RankProcess]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a collector, which sends its first requests with the first `collect`.

        Args:
            processes: returns the processes of ranks and spares.
            clock: returns the time in seconds.
        """
        self.linked: frozenset[RankProcess] = frozenset()
        self.dead: set[RankProcess] = set()
        self._agents = agents
        self._current_processes = processes
        self._clock = clock
        self._indexed_at = -INDEX_SECONDS
        self._nodes: dict[str, _Node] = {}
        self._news: list[LinkedReports] = []

    @property
    def pending(self) -> list[Any]:
        """Requests to agents that have not been answered."""
        return [node.pending for node in self._nodes.values() if node.pending is not None]

    def collect(self) -> bool:
        """Take the answers that have arrived, and send the next requests.

        Returns:
            Whether an agent has reported a death.
        """
        now, deaths = self._clock(), len(self.dead)
        if now - self._indexed_at >= INDEX_SECONDS:
            self._index(now)
        waiting = {name: n.pending for name, n in self._nodes.items() if n.pending is not None}
        for name, answer in arrived_answers(waiting).items():
            node = self._nodes[name]
            node.pending = None
            if isinstance(answer, RayError):
                node.ask_at = now + RETRY_SECONDS
                self._link(node, frozenset())
            else:
                node.answered_at = now
                self._receive(node, answer)
        for name, node in self._nodes.items():
            if node.linked and now - node.answered_at > SILENT_SECONDS:
                self._link(node, frozenset())
            if node.pending is None and node.processes and now >= node.ask_at:
                alive = {i: p for i, p in node.processes.items() if p not in self.dead}
                received = {process_id: process.received for process_id, process in alive.items()}
                node.pending = self._agents.by_node[name].listen.remote(received)
        return len(self.dead) > deaths

    def take(self) -> list[LinkedReports]:
        """Return the news of linked processes since the last call."""
        news, self._news = self._news, []
        return news

    def relays_heartbeats(self, process: RankProcess) -> bool:
        """Return whether the agent of a process passes heartbeats on to it.

        Any thread may call this. The answer does not depend on calls of `collect`.
        """
        node = self._nodes.get(process.rank_bundle.node)
        if node is None or process not in node.linked:
            return False
        return self._clock() - node.answered_at <= SILENT_SECONDS

    def _index(self, now: float) -> None:
        """List the processes that have started, by node, and tell them where their agents are."""
        self._indexed_at = now
        by_node: dict[str, dict[int, RankProcess]] = {}
        current = list(self._current_processes())
        for process in current:
            if name := process.name:
                by_node.setdefault(name.node, {})[name.id] = process
        for node_id in by_node.keys() & self._agents.by_node.keys():
            self._nodes.setdefault(node_id, _Node())
        for node_id, node in self._nodes.items():
            node.processes = by_node.get(node_id, {})
            for process in node.processes.values():
                if node.address and process.address != node.address:
                    process.address = node.address
                    process.actor.link.remote(node.address)
        self.dead.intersection_update(current)

    def _receive(self, node: _Node, answer: NodeReports) -> None:
        if node.address != answer.address:
            node.address = answer.address
            self._indexed_at = -INDEX_SECONDS  # tell the processes
        linked = set()
        for process_id, process in node.processes.items():
            silent_seconds = answer.silent_seconds.get(process_id, SILENT_SECONDS)
            frames = answer.frames.get(process_id, [])
            batches = [ReportBatch(f.first, f.reports(), answer.now) for f in frames]
            process.received = max([process.received, *(batch.end for batch in batches)])
            if silent_seconds < SILENT_SECONDS:
                linked.add(process)
            self._news.append(LinkedReports(process, silent_seconds, batches))
            if process_id in answer.dead:
                self.dead.add(process)
        self._link(node, frozenset(linked))

    def _link(self, node: _Node, linked: frozenset[RankProcess]) -> None:
        if node.linked != linked:
            node.linked = linked
            self.linked = frozenset().union(*(one.linked for one in self._nodes.values()))
