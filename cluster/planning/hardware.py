"""Check the hardware of a cluster's nodes for a plan, or of this machine without a cluster.

The check reserves what a rank needs, on each node that has it free. It therefore disturbs no other
job, and leaves out nodes that are in use.
"""

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.node_check.actor import NodeCheckActor
from cluster.node_check.checks import NodeChecks, NodeProcesses
from cluster.node_check.figures import MeasuredNode
from cluster.node_check.verdicts import NODE_CHECK_REMEDY, NodeCheckReport, compare
from cluster.planning.problem import PlanProblem
from cluster.ray.cluster_view import Node
from cluster.ray.reservation import Reservation, room
from cluster.recipe import Recipe
from cluster.supervision.restart_loop import hardware_check_folders
from foundation.wording import counted, join_items

THIS_MACHINE = "this machine"


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
