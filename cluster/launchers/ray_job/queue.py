"""Whose turn it is: jobs get room in the order in which they were submitted.

    jobs that are not over, with their states ──┐
    nodes, what is free and what there is ──────┴─▶ `turn` ──▶ go, or what the job waits for

Each runner decides for itself, and all come to the same answer: only the first of those that wait
may go, and it counts what jobs that have just begun have yet to reserve. So a large job is not
overtaken by small ones for ever.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from cluster.launchers.ray_job.job_record import Needs
from cluster.ray.reservation import has_labels, room
from foundation.wording import counted

LAST_POSITION = (math.inf, "")  # the place of a job that Ray does not list
WAITING_STATES = frozenset({"PENDING", "WAITING"})


@dataclass(frozen=True)
class QueuedJob:
    """A job of ours that is not over.

    Attributes:
        state: of its record; PENDING if its runner has not begun.
        needs: None while that is so.
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
    """Amounts of resources on a node, free ones and all, and its labels."""

    free: Mapping[str, float]
    total: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class QueueView(Protocol):
    """The cluster, as a job's runner sees it."""

    def jobs(self) -> Sequence[QueuedJob]:
        """All jobs of ours that are not over."""

    def nodes(self) -> Sequence[NodeCapacity]:
        """The nodes that are alive and stay."""


def waiting_reason(
    job_id: str, needs: Needs, jobs: Sequence[QueuedJob], nodes: Sequence[NodeCapacity]
) -> str:
    """What a job has to wait for; "" if it may begin."""
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
    words = [f"it needs {needs}", f"free is {_amounts([node.free for node in nodes])}"]
    if begun:
        words.append(f"{counted(len(begun), 'job')} that begins has yet to reserve its part of it")
    _, ranks_ever = _reserve(needs, [replace(node, free=node.total) for node in nodes])
    if not ahead and ranks_ever < needs.ranks:
        words.append(
            f"the whole cluster has {_amounts([node.total for node in nodes])}: it waits for nodes "
            "to be added"
        )
    if ahead:
        names = ", ".join(job.id for job in sorted(ahead, key=lambda job: job.queue_position))
        return f"{names}, submitted before it; {'; '.join(words)}"
    return f"room: {'; '.join(words)}"


def _reserve(needs: Needs, nodes: Sequence[NodeCapacity]) -> tuple[list[NodeCapacity], int]:
    """What stays free where a job takes what it needs, and how many of its ranks have room."""
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
    """Such as "3 CPU and 1 GPU on 2 nodes"."""
    cpus, gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
    more = f" and {gpus:g} GPU" if gpus else ""
    return f"{cpus:g} CPU{more} on {counted(len(nodes), 'node')}"
