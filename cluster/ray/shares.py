"""Fair shares of a cluster: a pure function from jobs and nodes to a number of ranks for each job.

    unfinished jobs: owner, priority, smallest and largest number of ranks ──┐
    nodes: resources that no other program holds ────────────────────────────┴─▶ `target_ranks`

1. A job that has begun gets its smallest number of ranks, whatever the priority of the others.
2. Priorities are served one after another, highest first. Within one priority, each rank goes to
   the owner with the smallest share, and to the job of this owner with the smallest share. Ties go
   to the job that was submitted first. A waiting job gets its smallest number of ranks at once, or
   waits.

A share is the largest fraction of any resource of the cluster, divided by the owner's weight
(max–min fairness of dominant shares: Ghodsi et al., 2011, Dominant Resource Fairness, NSDI).

The result depends neither on free resources nor on the places of ranks. It is therefore the same
for all processes that know the same jobs and nodes, also while ranks move.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated, Self

from pydantic import Field

from cluster.config import ClusterConfig
from cluster.ray.reservation import has_labels, room
from foundation.file_model import FileModel
from run_store.start import Claim

# Keys in a job's metadata: the run's folder or URL, `Claim` and `Needs` as JSON.
RUN_KEY, CLAIM_KEY, NEEDS_KEY = "run", "claim", "needs"
MAX_RANKS = 100_000
_ROUNDING = 9  # shares are rounded to this many decimals to be compared
RankCount = Annotated[int, Field(gt=0, le=MAX_RANKS)]


class Needs(FileModel):
    """Resources of a run: a number of ranks, and the CPUs of its data workers.

    Attributes:
        ranks: the smallest number of ranks.
        max_ranks: the largest number of ranks; None if it equals the smallest number.
        bundle: all resources that Ray reserves for a rank, by Ray's names.
        node_labels: labels that the ranks' nodes must have.
    """

    ranks: RankCount
    max_ranks: RankCount | None = None
    bundle: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    cpus_of_workers: Annotated[float, Field(ge=0)]
    node_labels: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of(cls, config: ClusterConfig) -> Self:
        """Return what a recipe's cluster section needs."""
        return cls(
            ranks=config.min_ranks,
            max_ranks=config.max_ranks,
            bundle=config.resources_of_a_rank,
            cpus_of_workers=config.data_workers * config.cpus_per_data_worker,
            node_labels=config.node_labels,
        )

    def __str__(self) -> str:
        rank = " and ".join(f"{amount:g} {name}" for name, amount in self.bundle.items())
        labels = ", ".join(f"{key}={value}" for key, value in self.node_labels.items())
        workers = f", and {self.cpus_of_workers:g} CPU for data workers"
        return (
            f"{self.ranks} × ({rank}){f' on nodes with {labels}' if labels else ''}"
            f"{workers if self.cpus_of_workers else ''}"
        )


@dataclass(frozen=True)
class SharingJob:
    """An unfinished job that takes part in shares.

    Attributes:
        run: location of its run, without a slash at the end.
        submitted: time of its submission, in seconds since the epoch.
        begun: whether it trains, or is about to start ranks.
        held: number of ranks for which it has reserved resources.
        keeps: whether it gives no ranks, although its target is lower.
    """

    id: str
    run: str
    submitted: float
    claim: Claim
    needs: Needs
    begun: bool = False
    held: int = 0
    keeps: bool = False

    @property
    def precedence(self) -> tuple[int, float, str]:
        return -self.claim.priority, self.submitted, self.id

    @property
    def largest(self) -> int:
        return max(self.needs.ranks, self.needs.max_ranks or 0)

    @property
    def floor(self) -> int:
        """Number of ranks that no other job takes from the job while it trains."""
        keeps = self.keeps or self.claim.fixed
        return max(self.needs.ranks, min(self.held, self.largest)) if keeps else self.needs.ranks

    @property
    def label(self) -> str:
        """The job with its owner and priority, for messages."""
        return f"{self.id} of {self.claim.owner} (priority {self.claim.priority})"


@dataclass(frozen=True)
class NodeCapacity:
    """Resources of a node that is alive and not draining.

    Attributes:
        free: amounts that are not reserved.
        usable: amounts that no program outside the shares has reserved.
    """

    free: Mapping[str, float]
    usable: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterSnapshot:
    """Jobs that take part in shares, and nodes that are alive and not draining."""

    jobs: Sequence[SharingJob]
    nodes: Sequence[NodeCapacity]


class Space:
    """Resources of nodes, from which ranks take bundles one after another."""

    def __init__(self, resources: Iterable[Mapping[str, float]], nodes: Sequence[NodeCapacity]):
        """Create a space.

        Args:
            resources: the amounts of each node that are available.
            nodes: the nodes, for their labels.
        """
        self._free = [dict(amounts) for amounts in resources]
        self._labels = [node.labels for node in nodes]
        # For each shape of bundle, the nodes that may have room for more, fullest last.
        self._open: dict[str, list[int]] = {}

    def place(self, needs: Needs, ranks: int, *, with_workers: bool) -> bool:
        """Take bundles for ranks, on the nodes with the largest room first, or take nothing.

        Args:
            with_workers: whether to take the CPUs of the job's data workers, too.

        Returns:
            Whether there was room for all.
        """
        shape = repr((sorted(needs.bundle.items()), sorted(needs.node_labels.items())))
        before = [dict(amounts) for amounts in self._free] if ranks > 1 or with_workers else None
        left = needs.cpus_of_workers if with_workers else 0.0
        for amounts in self._free if left else ():
            taken = min(left, max(0.0, amounts.get("CPU", 0.0)))
            amounts["CPU"] = amounts.get("CPU", 0.0) - taken
            left -= taken
        if shape not in self._open:
            fitting = [
                n for n, own in enumerate(self._labels) if has_labels(own, needs.node_labels)
            ]
            rooms = {n: room(self._free[n], needs.bundle) for n in fitting}
            self._open[shape] = sorted(fitting, key=lambda n: (rooms[n], -n))
        nodes = list(self._open[shape])
        while left <= 0 and ranks and nodes:
            amounts = self._free[nodes[-1]]
            if room(amounts, needs.bundle) < 1:
                nodes.pop()
                continue
            for name, amount in needs.bundle.items():
                amounts[name] -= amount
            ranks -= 1
        if left > 0 or ranks:
            self._free = before or self._free
            return False
        self._open[shape] = nodes
        return True


def target_ranks(jobs: Sequence[SharingJob], nodes: Sequence[NodeCapacity]) -> dict[str, int]:
    """Return the number of ranks that each job should have, by the job's id; 0 if it must wait.

    If several jobs have the same run, only the job that has begun, or else the first job, takes
    part.

    Args:
        jobs: all unfinished jobs that take part.
        nodes: nodes that are alive and not draining.
    """
    space = Space((node.usable for node in nodes), nodes)
    everything: Counter[str] = Counter()
    for node in nodes:
        everything.update(node.usable)
    targets = dict.fromkeys((job.id for job in jobs), 0)
    competing = sorted(one_per_run(jobs), key=lambda job: job.precedence)
    for job in competing:
        for ranks in (job.floor, job.needs.ranks) if job.begun else ():
            if not targets[job.id] and space.place(job.needs, ranks, with_workers=True):
                targets[job.id] = ranks
    for _, level in groupby(competing, key=lambda job: job.claim.priority):
        _fill(list(level), targets, space, everything)
    return targets


def one_per_run(jobs: Iterable[SharingJob]) -> list[SharingJob]:
    """Return one job of each run: the one that has begun, or else the one submitted first."""
    ordered = sorted(jobs, key=lambda job: (job.begun, -job.submitted, job.id))
    return list({job.run: job for job in ordered}.values())


def _fill(
    level: list[SharingJob], targets: dict[str, int], space: Space, everything: Mapping[str, float]
) -> None:
    """Give the remaining ranks to the jobs of one priority, always to the smallest share."""
    parts = {job.id: _part(job.needs, everything) for job in level}
    weights: defaultdict[str, float] = defaultdict(float)
    shares: defaultdict[str, float] = defaultdict(float)
    for job in level:
        owner = job.claim.owner
        weights[owner] = max(weights[owner], job.claim.weight)
        shares[owner] += parts[job.id] * targets[job.id]

    def share(job: SharingJob) -> tuple[float, float]:
        of_owner = shares[job.claim.owner] / weights[job.claim.owner]
        return round(of_owner, _ROUNDING), round(parts[job.id] * targets[job.id], _ROUNDING)

    while level:
        job = min(level, key=share)  # `min` returns the first of equal jobs
        is_waiting = not targets[job.id]
        more = job.needs.ranks if is_waiting else 1
        has_most = targets[job.id] + more > job.largest
        if has_most or not space.place(job.needs, more, with_workers=is_waiting):
            level.remove(job)
            continue
        targets[job.id] += more
        shares[job.claim.owner] += parts[job.id] * more


def _part(needs: Needs, everything: Mapping[str, float]) -> float:
    """Return the largest fraction of a resource of the cluster that one rank reserves."""
    return max(n / (everything.get(name) or n) for name, n in needs.bundle.items())
