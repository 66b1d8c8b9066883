"""Whose turn it is: jobs get room in the order in which they were submitted.

    jobs that are not over, with their states ──┐
    nodes, what is free and what there is ──────┴─▶ `turn` ──▶ go, or what the job waits for

Each runner decides for itself, and all come to the same answer: only the first of those that wait
may go, and it counts what jobs that have just begun have yet to reserve. So a large job is not
overtaken by small ones for ever.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cluster.launchers.ray_job.record import Needs
from cluster.ray.reservation import room
from data_pipeline.wording import counted

LAST = (math.inf, "")  # the place of a job that Ray does not list
WAITS = frozenset({"PENDING", "WAITING"})


@dataclass(frozen=True)
class Queued:
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
    def place(self) -> tuple[float, str]:
        return self.submitted, self.id


@dataclass(frozen=True)
class NodeRoom:
    """Amounts of resources on a node: free ones, and all."""

    free: Mapping[str, float]
    total: Mapping[str, float] = field(default_factory=dict)


class View(Protocol):
    """The cluster, as a job's runner sees it."""

    def jobs(self) -> Sequence[Queued]:
        """All jobs of ours that are not over."""

    def nodes(self) -> Sequence[NodeRoom]:
        """The nodes that are alive and stay."""


def turn(job_id: str, needs: Needs, jobs: Sequence[Queued], nodes: Sequence[NodeRoom]) -> str:
    """What a job has to wait for; "" if it may begin."""
    others = [job for job in jobs if job.id != job_id]
    mine = next((job.place for job in jobs if job.id == job_id), LAST)
    ahead = [job for job in others if job.state in WAITS and job.place < mine]
    begun = [job.needs for job in others if job.state == "STARTING"]
    free = [dict(node.free) for node in nodes]
    for other in begun:
        if other is not None:
            _reserve(other, free)
    ranks = _reserve(needs, free)
    if not ahead and ranks >= needs.ranks:
        return ""
    words = [f"it needs {needs}", f"free is {_amounts([node.free for node in nodes])}"]
    if begun:
        words.append(f"{counted(len(begun), 'job')} that begins has yet to reserve its part of it")
    if not ahead and _reserve(needs, [dict(node.total) for node in nodes]) < needs.ranks:
        words.append(
            f"the whole cluster has {_amounts([node.total for node in nodes])}: it waits for nodes "
            "to be added"
        )
    if ahead:
        names = ", ".join(job.id for job in sorted(ahead, key=lambda job: job.place))
        return f"{names}, submitted before it; {'; '.join(words)}"
    return f"room: {'; '.join(words)}"


def _reserve(needs: Needs, free: list[dict[str, float]]) -> int:
    """Take what a job needs from what is free; return for how many of its ranks there is room."""
    bundle = {"CPU": needs.cpus_per_rank, "GPU": float(needs.gpus_per_rank)}
    bundle = {name: amount for name, amount in bundle.items() if amount}
    left = needs.cpus_of_workers
    for node in free:
        taken = min(left, node.get("CPU", 0.0))
        node["CPU"] = node.get("CPU", 0.0) - taken
        left -= taken
    if left > 0:
        return 0
    placed = 0
    for node in sorted(free, key=lambda node: -room(node, bundle)):
        ranks = min(room(node, bundle), needs.ranks - placed)
        placed += ranks
        for name, amount in bundle.items():
            node[name] = node.get(name, 0.0) - ranks * amount
    return placed


def _amounts(nodes: Sequence[Mapping[str, float]]) -> str:
    """Such as "3 CPU and 1 GPU on 2 nodes"."""
    cpus, gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
    more = f" and {gpus:g} GPU" if gpus else ""
    return f"{cpus:g} CPU{more} on {counted(len(nodes), 'node')}"
