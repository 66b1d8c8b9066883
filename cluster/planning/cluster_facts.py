"""Query a running cluster: free resources, their holders, capacity for a run, and hardware.

The hardware check reserves the resources of a rank on each node where they are free. It therefore
disturbs no other job, and omits nodes that are in use. Without a cluster, this machine is checked.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.errors import ClusterError
from cluster.node_check.actor import NodeCheckActor
from cluster.node_check.checks import NodeChecks, NodeProcesses
from cluster.node_check.figures import MeasuredNode
from cluster.node_check.verdicts import NODE_CHECK_REMEDY, NodeCheckReport, compare
from cluster.planning.problem import PlanProblem
from cluster.ray.cluster_shares import query_shares
from cluster.ray.cluster_view import ClusterView, Node
from cluster.ray.jobs import dashboard_of
from cluster.ray.private import Holder, holders
from cluster.ray.reservation import Reservation, has_labels, max_possible_ranks, room
from cluster.ray.session import ray_session
from cluster.ray.shares import Needs, SharingJob, target_ranks
from cluster.recipe import Recipe
from cluster.supervision.invocation import claim_of, current_user
from cluster.supervision.restart_loop import hardware_check_folders
from foundation.wording import counted, join_items
from run_store.folder import RunFolder
from run_store.start import DEFAULT_PRIORITY

THIS_MACHINE = "this machine"


@dataclass(frozen=True)
class ClusterFacts:
    """Snapshot of a cluster.

    Attributes:
        room: number of ranks that fit into the free resources.
        room_at_all: number of ranks that would fit if all resources were free.
        target: number of ranks that a new job would get now, after other jobs have released some; 0
            if the new job would wait, None if the cluster's jobs cannot be listed.
    """

    nodes: tuple[Node, ...]
    holders: tuple[Holder, ...]
    room: int
    room_at_all: int
    target: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "room": self.room,
            "room_at_all": self.room_at_all,
            "target": self.target,
            "nodes": [_node_json(node) for node in self.nodes],
            "holders": [
                {**vars(holder), "resources": dict(holder.resources)} for holder in self.holders
            ],
        }


def ask_cluster(
    recipe: Recipe,
    run: RunFolder,
    address: str,
    notice: Callable[[str], None],
    *,
    check_nodes: bool = False,
) -> tuple[ClusterFacts, NodeCheckReport | None, list[PlanProblem]]:
    """Join the cluster, collect its facts and problems, and leave it.

    The report of the hardware check is None without a check.

    Args:
        notice: called with notices about the cluster itself, such as open endpoints.
        check_nodes: whether to check the hardware of the nodes, too.

    Raises:
        ClusterError: the cluster cannot be joined.
    """
    config, node_check, problems = recipe.cluster, None, list[PlanProblem]()
    with (
        ray_session(address, report_open_endpoints=notice),
        ClusterView(config.wait_for_head_seconds, notice) as view,
    ):
        held, target = tuple(holders()), _target_of_new_job(recipe, run)
        nodes = tuple(sorted(view.query_nodes().values(), key=lambda node: node.name))
        fitting = [
            node
            for node in nodes
            if node.leaves_at is None and has_labels(node.labels, config.node_labels)
        ]
        if check_nodes:
            notice("checking the hardware of the nodes")
            node_check, problems = check_cluster(recipe, run.path, fitting)
    bundle = config.resources_of_a_rank
    facts = ClusterFacts(
        nodes=nodes,
        holders=held,
        room=sum(room(node.free, bundle) for node in fitting),
        room_at_all=max_possible_ranks(config, fitting),
        target=target,
    )
    return facts, node_check, [*capacity_problems(recipe, facts), *problems]


def _target_of_new_job(recipe: Recipe, run: RunFolder) -> int | None:
    claim = claim_of(recipe, current_user(), DEFAULT_PRIORITY)
    new = SharingJob("", run.location, math.inf, claim, Needs.of(recipe.cluster))
    try:
        dashboard = dashboard_of(ray.get_runtime_context().gcs_address)
        snapshot = query_shares(dashboard, lambda job: False)
    except (ClusterError, ValueError):  # Ray runs without its dashboard
        return None
    return target_ranks([*snapshot.jobs, new], snapshot.nodes)[""]


def capacity_problems(recipe: Recipe, facts: ClusterFacts) -> list[PlanProblem]:
    """Check that the minimum number of ranks fits into the cluster, now or once other jobs end."""
    config = recipe.cluster
    least = config.min_ranks
    if facts.room >= least:
        return []
    each = " and ".join(f"{n:g} {name}" for name, n in config.resources_of_a_rank.items())
    if config.node_labels:
        each += f" on nodes with {join_items(f'{k}={v}' for k, v in config.node_labels.items())}"
    if facts.room_at_all < least:
        text = (
            f"The run needs {counted(least, 'rank')} of {each} each, but the cluster has capacity "
            f"for only {facts.room_at_all}, even if no job used it. Lower cluster.ranks, or add "
            "nodes"
        )
        return [PlanProblem("cluster", text)]
    held = join_items(f"{resources_text(h)} by {holder_text(h)}" for h in facts.holders)
    text = (
        f"The run needs {counted(least, 'rank')} of {each} each, but the cluster now has free "
        f"capacity for only {facts.room} (in use: {held}). The run would wait for up to "
        f"{config.wait_for_ranks_seconds:g} s (cluster.wait_for_ranks_seconds). Wait until other "
        "jobs end, or lower cluster.ranks"
    )
    return [PlanProblem("cluster", text, refuses=False)]


def holder_text(holder: Holder) -> str:
    """Describe a holder of resources for messages."""
    name = holder.submission or f"job {holder.job}"
    return f"{name} ({holder.run or holder.command}; driver on {holder.driver})"


def resources_text(holder: Holder) -> str:
    """Describe the resources of a holder for messages."""
    return " and ".join(f"{amount:g} {name}" for name, amount in sorted(holder.resources.items()))


def _node_json(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "free": _plain(node.free),
        "total": _plain(node.total),
        "leaves": node.leaves_at is not None,
    }


def _plain(amounts: Any) -> dict[str, float]:
    """Return the amounts without Ray's internal resources of a node, such as node:10.0.0.1."""
    return {name: n for name, n in amounts.items() if ":" not in name}


def check_cluster(
    recipe: Recipe, run: Path, nodes: Collection[Node]
) -> tuple[NodeCheckReport | None, list[PlanProblem]]:
    """Run a full check on the nodes of a joined cluster; return its report and problems.

    Args:
        nodes: the nodes that may have ranks.
    """
    config = recipe.cluster
    names = {node.id: node.name for node in nodes}
    rooms = {node.id: room(node.free, config.resources_of_a_rank) for node in nodes}
    places = [node for node in rooms for _ in range(rooms[node] if config.gpus_per_rank else 1)]
    places = [node for node in places if rooms[node]]
    reservation = Reservation(config)
    processes: dict[str, NodeProcesses] = {}
    report = None
    try:
        if places and reservation.take(places):
            for bundle in reservation.taken:
                actor = _actor(bundle.node, bundle.gpu)
                before = processes.get(bundle.node, NodeProcesses(names[bundle.node], ()))
                processes[bundle.node] = NodeProcesses(before.name, (*before.actors, actor))
            checks = NodeChecks(
                "full", config.device, config.threads_per_rank, config.deadlines.start_seconds
            )
            report = checks.check(processes, hardware_check_folders(recipe, run))
    finally:
        for mine in processes.values():
            for actor in mine.actors:
                ray.kill(actor)
        reservation.release()
    problems = _problems(report, rooms, config.min_ranks) if report else []
    checked = report.checked if report else ()
    if missing := [names[node] for node in rooms if node not in checked]:
        text = (
            f"Not checked: {join_items(missing)}. A node is checked if it has free capacity for a "
            "rank and can start a process of transloom; Ray's logs say why one cannot"
        )
        problems.append(PlanProblem("node", text, refuses=False))
    return report, problems


def check_this_machine(recipe: Recipe, run: Path) -> tuple[NodeCheckReport, list[PlanProblem]]:
    """Run a full check of this machine in this process."""
    from cluster.node_check.measure import measure_node  # imports torch

    config = recipe.cluster
    since = time.monotonic()
    folders = hardware_check_folders(recipe, run)
    figures = measure_node(config.device, config.threads_per_rank, "full", folders)
    nodes = {THIS_MACHINE: MeasuredNode(THIS_MACHINE, figures)}
    report = NodeCheckReport(
        "full",
        nodes,
        checked=tuple(nodes),
        verdicts=tuple(compare(nodes)),
        seconds=time.monotonic() - since,
    )
    return report, _problems(report, {THIS_MACHINE: config.max_ranks}, config.min_ranks)


def _actor(node: str, gpu: str | None) -> Any:
    return NodeCheckActor.options(  # type: ignore[attr-defined]
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
    ).remote(gpu)


def _problems(
    report: NodeCheckReport, rooms: Mapping[str, int], min_ranks: int
) -> list[PlanProblem]:
    """Return the verdicts as problems; they refuse the run only if too few nodes are left."""
    problems = [PlanProblem("node", verdict.text, refuses=False) for verdict in report.verdicts]
    problems += [PlanProblem("node", warning, refuses=False) for warning in report.warnings]
    left = sum(free for node, free in rooms.items() if node not in report.failing)
    if report.failing and left < min_ranks:
        text = (
            f"Without the nodes that fail the check, there is capacity for "
            f"{counted(left, 'rank')}, but the run needs at least {min_ranks}{NODE_CHECK_REMEDY}"
        )
        problems.append(PlanProblem("cluster", text))
    return problems
