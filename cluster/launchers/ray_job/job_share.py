"""Decisions of one job about its share of the cluster, from snapshots that may be seconds old.

::

    snapshot of jobs and nodes ──▶ `target_ranks` ──┬─ job waits ──▶ begin, or wait for a reason
                                                    └─ job trains ─▶ `ShareTarget` for its driver

Each job's runner decides independently. A decision depends only on snapshots, the time, and the
job's earlier decisions:

    begin        the job has a target, and its smallest number of ranks is free
    give ranks   at once if a job waits for its smallest number of ranks; otherwise after
                 `cluster.rebalance_seconds`, if another job is below its target
    take ranks   at once; on new nodes after a minute

If a job exceeds its target for longer than `GIVE_SECONDS`, the other jobs assume that it keeps its
ranks, and share the rest. Ray assigns the resources of free ranks, so no two jobs hold the same
rank.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from cluster.ray.shares import ClusterSnapshot, SharingJob, Space, one_per_run, target_ranks
from cluster.supervision.share_target import MAX_CHARACTERS, ShareTarget
from foundation.wording import counted, join_first
from run_store.start import StopOrder

GIVE_SECONDS = 600.0
# Free ranks are taken at once only if no node has been added for this many seconds.
NODE_SECONDS = 60.0
NAMED = 3  # maximum number of jobs named in a sentence


class SharesView(Protocol):
    """A job runner's view of the cluster."""

    def snapshot(self) -> ClusterSnapshot:
        """Return the jobs and nodes of the cluster.

        Raises:
            ClusterError: the head does not answer.
        """

    def stop_order(self, job_id: str) -> StopOrder | None:
        """Return the newest order of a user to stop a job, or None."""


class JobShare:
    """Target of one job over time, and the reasons for it.

    Attributes:
        held: number of ranks that the job holds, in the last snapshot.
        has_turn: whether the waiting job begins as soon as other jobs have given ranks.
    """

    def __init__(self, job_id: str, rebalance_seconds: float) -> None:
        self.held = 0
        self.has_turn = False
        self._id = job_id
        self._rebalance_seconds = rebalance_seconds
        self._last = ShareTarget(ranks=0)
        self._lower_since: float | None = None  # when the target fell below `held`
        self._above: dict[str, tuple[int, float]] = {}  # jobs above target: ranks, since when
        self._listed: dict[str, SharingJob] = {}
        self._nodes, self._nodes_since = 0, -math.inf

    def waiting_reason(self, snapshot: ClusterSnapshot, now: float) -> str:
        """Return the reason why the job must wait, or "" if it may begin.

        Args:
            now: time by a monotonic clock, in seconds.
        """
        jobs, targets = self._targets(snapshot, now)
        me = self._listed.get(self._id)
        if me is None:
            return "Ray's list of jobs to contain it with a valid claim"
        self.has_turn = targets[me.id] > 0
        user = next(job for job in one_per_run(jobs) if job.run == me.run)
        if user.id != me.id:
            return f"its run, which {user.label} uses"
        others = sorted((job for job in jobs if job.id != me.id), key=lambda job: job.precedence)
        first = [
            job
            for job in others
            if targets[job.id]
            and job.held < job.needs.ranks
            and (job.begun or job.precedence < me.precedence)
        ]
        space = Space((node.free for node in snapshot.nodes), snapshot.nodes)
        for job in first:
            space.place(job.needs, job.needs.ranks - job.held, with_workers=not job.held)
        if targets[me.id] and space.place(me.needs, me.needs.ranks, with_workers=True):
            return ""
        free = amounts_text([node.free for node in snapshot.nodes])
        words = [f"it needs {me.needs}", f"{free} are free"]
        if targets[me.id]:
            givers = [job for job in others if job.held > targets[job.id]]
            words += [f"{_labels(givers)} will give ranks"] if givers else []
            words += [f"{_labels(first)} will take ranks first"] if first else []
        elif not target_ranks([me], snapshot.nodes)[me.id]:
            usable = amounts_text([node.usable for node in snapshot.nodes])
            words.append(f"the whole cluster has only {usable}, so the job waits for more nodes")
        else:
            words.append(_kept_text(me, others, targets))
        return f"capacity: {'; '.join(words)}"

    def target(self, snapshot: ClusterSnapshot, now: float) -> ShareTarget:
        """Return the number of ranks that the job, which has begun, should have now."""
        before = self._listed
        jobs, targets = self._targets(snapshot, now)
        me = self._listed.get(self._id)
        if me is None:
            return self._last
        computed = targets[me.id]
        receivers = [job for job in jobs if job.id != me.id and job.held < targets[job.id]]
        waiting = [job for job in receivers if not job.begun] or [
            job for job in receivers if job.held < job.needs.ranks
        ]
        ranks, reason = computed, f"its share is {counted(computed, 'rank')}"
        if computed >= me.held or not receivers:
            self._lower_since = None
            # A snapshot may be older than the last decision, so its held ranks must not raise the
            # number.
            ranks = max(computed, min(me.held, self._last.ranks))
            if ended := [before[name] for name in before.keys() - self._listed.keys()]:
                reason = f"{_labels(ended)} {'has' if len(ended) == 1 else 'have'} ended"
        else:
            self._lower_since = now if self._lower_since is None else self._lower_since
            if waiting:
                reason = f"{_labels(waiting)} {'waits' if len(waiting) == 1 else 'wait'} for ranks"
            elif now - self._lower_since >= self._rebalance_seconds:
                reason = f"{_labels(receivers)} {'has' if len(receivers) == 1 else 'have'} less"
            else:
                ranks = max(computed, min(me.held, self._last.ranks))
        if ranks == self._last.ranks:
            reason = self._last.reason
        self._last = ShareTarget(
            ranks=ranks,
            grows_at_once=now - self._nodes_since >= NODE_SECONDS,
            reason=reason[:MAX_CHARACTERS],
        )
        return self._last

    def _targets(
        self, snapshot: ClusterSnapshot, now: float
    ) -> tuple[Sequence[SharingJob], dict[str, int]]:
        """Return the jobs, with `keeps` set if they keep their ranks, and all jobs' targets."""
        jobs, nodes = snapshot.jobs, snapshot.nodes
        if len(nodes) > self._nodes:
            self._nodes_since = now if self._nodes else -math.inf
        self._nodes = len(nodes)
        self._listed = {job.id: job for job in jobs}
        self.held = self._listed[self._id].held if self._id in self._listed else 0
        targets = target_ranks(jobs, nodes)
        above = {}
        for job in jobs:
            if job.held > targets[job.id] and job.id != self._id:
                held, since = self._above.get(job.id, (job.held, now))
                above[job.id] = (job.held, since if held == job.held else now)
        self._above = above
        keeping = {name for name, (_, since) in above.items() if now - since > GIVE_SECONDS}
        if keeping:
            jobs = [replace(job, keeps=job.id in keeping) for job in jobs]
            targets = target_ranks(jobs, nodes)
        return jobs, targets


def _kept_text(me: SharingJob, others: Iterable[SharingJob], targets: Mapping[str, int]) -> str:
    """Describe the ranks that a waiting job cannot get."""
    kept = []
    for job in others:
        if job.begun and job.claim.priority <= me.claim.priority:
            kept.append(f"{job.label} keeps its smallest number of {counted(job.floor, 'rank')}")
        elif targets[job.id]:
            kept.append(f"{job.label} has a share of {counted(targets[job.id], 'rank')}")
    return join_first(kept, NAMED, noun="other job")


def _labels(jobs: Sequence[SharingJob]) -> str:
    ordered = sorted(jobs, key=lambda job: job.precedence)
    return join_first([job.label for job in ordered], NAMED, noun="other job")


def amounts_text(nodes: Sequence[Mapping[str, float]]) -> str:
    """Format total amounts, such as "3 CPU and 1 GPU on 2 nodes"."""
    cpus, gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
    more = f" and {gpus:g} GPU" if gpus else ""
    return f"{cpus:g} CPU{more} on {counted(len(nodes), 'node')}"
