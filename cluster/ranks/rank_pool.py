"""Pool of resources that outlive one attempt at a run.

The pool holds the reservation of bundles, an agent on every node, and warm spares. A new group uses
the spares of its nodes, and starts processes where spares are missing. When the group ends, all of
its processes are killed.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import ray
from ray.exceptions import RayError

from cluster.config import ClusterConfig
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.health.unfit_nodes import UnfitNodes
from cluster.health.watchdog import HEARTBEAT_SECONDS, HeartbeatSender
from cluster.node_check.checks import NodeChecks, NodeProcesses
from cluster.node_check.verdicts import NodeCheckReport, NodeVerdict
from cluster.ranks.agent_client import NodeAgents
from cluster.ranks.group import RankGroup
from cluster.ranks.node_agent import start_agent
from cluster.ranks.node_folder import NodeFolders
from cluster.ranks.node_memory import NodeMemories, PendingCopy, StoredFile
from cluster.ranks.node_meter import UsageRequests
from cluster.ranks.node_mirror import pull_run
from cluster.ranks.node_processes import collect_stacks, kill_processes
from cluster.ranks.process import RankProcess, SpareProcesses
from cluster.ray.cluster_view import Node
from cluster.ray.reservation import Reservation
from run_store.checkpoints.memory_file import MemoryFile
from run_store.folder import RunFolder
from run_store.record.node_usage import Usage

RECORD_SECONDS = 5.0  # timeout for the records of collectives of all ranks
# A rank gets separate heartbeats if its last poll was this long ago, because the driver is busy or
# polls rarely.
POLLED_SECONDS = 2 * HEARTBEAT_SECONDS


class RankPool:
    """Supply of rank groups, one group at a time, as large as the cluster's capacity allows.

    Attributes:
        give_up: returns True if waits for nodes should end early, because the run must stop.
        max_ranks: returns the largest number of ranks of a group now.
    """

    def __init__(
        self,
        config: ClusterConfig,
        clock: SuspendAwareClock,
        environment: Mapping[str, str],
        unfit: UnfitNodes,
    ) -> None:
        """Create an empty pool, which starts nothing yet.

        Args:
            environment: environment variables that a rank's libraries read at process start.
            unfit: nodes that get no ranks; may grow while the pool lives.
        """
        self.give_up: Callable[[], bool] = lambda: False
        self.max_ranks: Callable[[], int] = lambda: config.max_ranks
        self._config = config
        self._clock = clock
        self._unfit = unfit
        self._agents = NodeAgents(unfit, lambda: self.give_up())
        self._folders = NodeFolders(self._agents)
        self._memories = NodeMemories(self._agents)
        self._usage = UsageRequests(self._agents)
        self._reservation = Reservation(config, lambda: self.give_up())
        self._spares = SpareProcesses(config.device, environment, self._kill)
        self._node_checks = _node_checks(config)
        self._group: RankGroup | None = None
        self._heartbeat = HeartbeatSender(self._actors)

    def __enter__(self) -> Self:
        self._heartbeat.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._heartbeat.__exit__(*error)
        self.end_group()
        self._memories.close()
        self._kill(self._spares.waiting)  # Ray releases the bundles when this process ends

    def offer(self, nodes: Mapping[str, Node]) -> list[str]:
        """Return the node of each rank of the largest group that these nodes have capacity for.

        A node is listed once for each of its ranks. Nodes are excluded if they are about to leave,
        if they are unfit, or if their agent does not answer.
        """
        silent = self._agents.unresponsive(nodes)
        usable = {
            n.id: n
            for n in nodes.values()
            if n.leaves_at is None and n.id not in silent and n.id not in self._unfit
        }
        return self._reservation.offer(usable, self.max_ranks())

    def start_group(self, nodes: list[str], names: Mapping[str, str]) -> RankGroup | None:
        """Start a group with a rank on each of these nodes.

        Args:
            names: the name of each node in messages, by node id.

        Returns:
            The group, or None if Ray could not place it in time.
        """
        if not self._reservation.take(nodes):
            return None
        rank_bundles = self._reservation.taken
        node_names = [names[rank_bundle.node] for rank_bundle in rank_bundles]
        self._agents.start({one.node: names[one.node] for one in rank_bundles}, start_agent)
        self._group = RankGroup(
            self._config,
            self._spares.take(rank_bundles),
            [f"Rank {rank} on node {node}" for rank, node in enumerate(node_names)],
            self._clock,
            node_names,
            self._agents.by_node,
        )
        return self._group

    def silent_nodes(self, nodes: Mapping[str, Node]) -> list[str]:
        """Return the names of those nodes whose agent does not answer."""
        return sorted(self._agents.names[node] for node in self._agents.unresponsive(nodes))

    def check_nodes(self, work: Path, run: RunFolder) -> list[str]:
        """Run `NodeFolders.check`; to be called while the processes of a group start."""
        return self._folders.check(work, run)

    def separate_nodes(self, nodes: Collection[str]) -> set[str]:
        """Return those of `nodes` that do not share the folder of a run in an object store."""
        return self._folders.separate & set(nodes)

    def pull_run(
        self, work: str, nodes: Collection[str], first: Collection[str]
    ) -> tuple[set[str], list[str]]:
        """Run `node_mirror.pull_run`."""
        return pull_run(self._agents, work, nodes, first)

    def upload_changes(
        self, node: str, names: Collection[str], owner: int, again: Collection[str]
    ) -> Any:
        """Let a node upload the files that ranks have changed; return the pending answer."""
        return self._agents.by_node[node].upload_changes.remote(names, owner, again)

    def check_hardware(self, folders: Mapping[str, Path]) -> NodeCheckReport | None:
        """Check the nodes of the group that have not been checked, and add unfit ones to the list.

        The processes of the group measure their nodes before they train.

        Args:
            folders: folders whose storage is measured, by their names in messages.

        Returns:
            The report, or None if the recipe has no node check.
        """
        if self._node_checks is None or self._group is None:
            return None
        report = self._node_checks.check(self._node_processes(), folders, self.give_up)
        for verdict in report.verdicts:
            self._exclude(verdict)
        return report

    def _node_processes(self) -> dict[str, NodeProcesses]:
        """Return the processes of the group that measure their nodes, by node."""
        found: dict[str, NodeProcesses] = {}
        for process in self._group.processes if self._group else ():
            node = process.rank_bundle.node
            name = self._agents.names[node]
            before = found.get(node, NodeProcesses(name, ()))
            if self._config.gpus_per_rank or not before.actors:
                found[node] = NodeProcesses(name, (*before.actors, process.actor))
        return found

    def _exclude(self, verdict: NodeVerdict) -> None:
        if verdict.fails:
            self._unfit.add(verdict.node, verdict.reason, verdict.figures)

    def release_bundles(self) -> None:
        """Release the reserved bundles, so that data workers get the capacity first."""
        self._reservation.release()

    def refill_spares(self) -> None:
        """Start missing spares; call this only while ranks train, because it would slow a start."""
        if self._group and self._config.warm_spares:
            self._spares.refill(self._reservation.taken, self._group.actors[0])

    def stacks(self) -> dict[int, str]:
        """Return each rank's stacks, or a text for a rank whose stacks do not arrive in time."""
        processes = self._group.processes if self._group else []
        stacks = dict.fromkeys(
            range(len(processes)),
            "No stacks: the process does not exist, or its node did not answer.\n",
        )
        names = {rank: p.name for rank, p in enumerate(processes) if p.name}
        found = collect_stacks(self._agents, names.values())
        return stacks | {rank: found[name] for rank, name in names.items() if name in found}

    def collectives(self) -> dict[int, bytes]:
        """Return the record of collectives of each rank that answers in time, by rank."""
        actors = self._group.actors if self._group else []
        answers = [actor.collectives.remote() for actor in actors]
        if answers:
            ray.wait(answers, num_returns=len(answers), timeout=RECORD_SECONDS)
        records: dict[int, bytes] = {}
        for rank, answer in enumerate(answers):
            with suppress(RayError):  # not in time, or the process is lost
                records[rank] = ray.get(answer, timeout=0)
        return records

    def unresponsive_nodes(self, nodes: Collection[str]) -> set[str]:
        """Ping the agents of these nodes, and return the nodes whose agent does not answer."""
        return self._agents.ping(nodes)

    def ask_usage(self) -> None:
        """Request utilization from the nodes of the group; see `UsageRequests.ask`."""
        if self._group:
            self._usage.ask(self._group.nodes)

    def usage(self) -> dict[str, Usage]:
        """Return the result of `UsageRequests.take`."""
        return self._usage.take()

    def open_memory(self, name: str) -> list[str]:
        """Run `NodeMemories.open` for the nodes of the group."""
        return self._memories.open(name, set(self._group.nodes if self._group else ()))

    def stored_file(self, file: MemoryFile, node: str) -> StoredFile:
        """Return a memory file with the agent of its node."""
        return StoredFile(file, node, self._agents.by_node[node])

    def copy_memory(self, file: MemoryFile, source: str, target: str) -> PendingCopy:
        """Start to copy a memory file from one node to another."""
        agents = self._agents.by_node
        return PendingCopy(file, agents[source], agents[target], target)

    def keep_attempts(self, attempts: list[str]) -> None:
        """Remove the memory files of all attempts but these from all nodes; return at once."""
        for agent in self._agents.by_node.values():
            agent.keep_attempts.remote(attempts)

    def end_group(self) -> None:
        """Kill all ranks immediately, whatever they are doing."""
        if self._group:
            self._kill(self._group.processes)
        self._group = None

    def _kill(self, processes: list[RankProcess]) -> None:
        kill_processes(self._agents, (p.name for p in processes if p.name))
        for process in processes:
            ray.kill(process.actor)  # for Ray's bookkeeping, and for processes without a known name

    def _actors(self) -> Iterator[Any]:
        """Yield the actors that need a heartbeat: agents, and processes without a recent poll."""
        yield from list(self._agents.by_node.values())
        group = self._group  # another thread may end the group in the meantime
        for process in [*self._spares.waiting, *(group.processes if group else ())]:
            if time.monotonic() - process.polled_at > POLLED_SECONDS:
                yield process.actor


def _node_checks(config: ClusterConfig) -> NodeChecks | None:
    if (level := config.node_check_level) is None:
        return None
    return NodeChecks(level, config.device, config.threads_per_rank, config.deadlines.start_seconds)
