"""The queue of jobs: jobs get capacity in the order in which they were submitted.

    unfinished jobs with their states ─────────┐
    nodes with free and total resources ───────┴─▶ `waiting_reason` ──▶ begin, or wait for a reason

Each job's runner evaluates the queue independently, and all runners reach the same decision. Only
the first waiting job may begin. This job must leave free the resources that jobs in state STARTING
have not reserved yet. Small jobs therefore cannot overtake a large job forever.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from cluster.launchers.ray_job.job_record import WAITING_STATES, Needs
from cluster.ray.reservation import has_labels, room
from foundation.wording import counted

LAST_POSITION = (math.inf, "")  # the position of a job that Ray does not list


@dataclass(frozen=True)
class QueuedJob:
    """An unfinished transloom job.

    Attributes:
        submitted: time of its submission, in seconds since the epoch.
        state: the state in the job's record. A job without a record is PENDING if its runner may
            still start, and RUNNING otherwise.
        needs: resources that the job needs; None if the job has no record.
    """

    id: str
    submitted: float
    state: str
    needs: Needs | None = None

    @property
    def queue_position(self) -> tuple[float, str]:
        return self.submitted, self.id


@dataclass(frozen=True)
class NodeCapacity:
    """Free and total resources of a node, and its labels."""

    free: Mapping[str, float]
    total: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class QueueView(Protocol):
    """A job runner's view of the cluster."""

    def jobs(self) -> Sequence[QueuedJob]:
        """Return all unfinished transloom jobs."""

    def nodes(self) -> Sequence[NodeCapacity]:
        """Return the nodes that are alive and not draining."""


def waiting_reason(
    job_id: str, needs: Needs, jobs: Sequence[QueuedJob], nodes: Sequence[NodeCapacity]
) -> str:
    """Return the reason why a job must wait, or "" if it may begin.

    Args:
        jobs: all unfinished transloom jobs.
    """
    others = [job for job in jobs if job.id != job_id]
    mine = next((job.queue_position for job in jobs if job.id == job_id), LAST_POSITION)
    ahead = [job for job in others if job.state in WAITING_STATES and job.queue_position < mine]
    begun = [job.needs for job in others if job.state == "STARTING"]
    free = list(nodes)
    for other in begun:
        if other is not None:
            free, _ = _reserve(other, free)
    _, ranks = _reserve(needs, free)
    if not ahead and ranks >= needs.ranks:
        return ""
    words = [f"it needs {needs}", f"{_amounts([node.free for node in nodes])} are free"]
    if begun:
        will = "another job is" if len(begun) == 1 else f"{len(begun)} other jobs are"
        words.append(f"{will} about to take what it needs")
    _, ranks_ever = _reserve(needs, [replace(node, free=node.total) for node in nodes])
    if not ahead and ranks_ever < needs.ranks:
        words.append(
            f"the whole cluster has only {_amounts([node.total for node in nodes])}, so the job "
            "waits for more nodes"
        )
    if ahead:
        names = ", ".join(job.id for job in sorted(ahead, key=lambda job: job.queue_position))
        return f"{names}, submitted before it; {'; '.join(words)}"
    return f"capacity: {'; '.join(words)}"


def _reserve(needs: Needs, nodes: Sequence[NodeCapacity]) -> tuple[list[NodeCapacity], int]:
    """Subtract a job's needs from the free resources of nodes.

    Returns:
        The nodes with the remaining free resources, and the number of the job's ranks that fit. If
        the CPUs of its data workers do not fit, the nodes are unchanged and the number is 0.
    """
    bundle, left = needs.bundle, needs.cpus_of_workers
    after = []
    for node in nodes:
        taken = min(left, node.free.get("CPU", 0.0))
        after.append(_without(node, {"CPU": taken}))
        left -= taken
    if left > 0:
        return list(nodes), 0
    placed = 0
    for number in sorted(range(len(after)), key=lambda n: -room(after[n].free, bundle)):
        node = after[number]
        if has_labels(node.labels, needs.node_labels):
            ranks = min(room(node.free, bundle), needs.ranks - placed)
            after[number] = _without(node, {name: ranks * n for name, n in bundle.items()})
            placed += ranks
    return after, placed


def _without(node: NodeCapacity, taken: Mapping[str, float]) -> NodeCapacity:
    free = {name: node.free.get(name, 0.0) - amount for name, amount in taken.items()}
    return replace(node, free={**node.free, **free})


def _amounts(nodes: Sequence[Mapping[str, float]]) -> str:
    """Format total amounts, such as "3 CPU and 1 GPU on 2 nodes"."""
    cpus, gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
    more = f" and {gpus:g} GPU" if gpus else ""
    return f"{cpus:g} CPU{more} on {counted(len(nodes), 'node')}"
