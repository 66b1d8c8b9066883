"""One attempt at a run: a group of ranks, from its start until it returns, fails, or must leave.

Every tenth of a second the supervisor hears what the ranks say, commits the checkpoints that are
complete, and looks for a reason to end the attempt: a request to stop, a node that is about to
leave, or room for more ranks.
"""

import math
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import ray

from cluster.config import ClusterConfig
from cluster.data.workers import DataWorkers, numbers
from cluster.errors import RankHungError
from cluster.health.stacks import keep_stacks
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.ranks.group import RankGroup
from cluster.ranks.mailbox import Report
from cluster.ranks.pool import RankSupply
from cluster.ray.cluster_view import ClusterView, Node
from cluster.supervision.audience import Audience
from cluster.supervision.stop_requests import StopRequests
from data_pipeline.wording import counted
from trainer.checkpoints.committer import CheckpointCommitter
from trainer.checkpoints.lease import Lease
from trainer.runs.folder import RunFolder
from trainer.supervision import Outcome

POLL_SECONDS = 0.1
LEASE_CHECK_SECONDS = 5.0
ROOM_CHECK_SECONDS = 5.0
WORKERS_CHECK_SECONDS = 0.5
# So long before a node that is being drained is gone, its ranks have left or are killed.
DRAIN_MARGIN_SECONDS = 5.0
# So long there must have been room for more ranks, and the ranks there are have trained.
GROW_AFTER_SECONDS = 60.0


@dataclass(frozen=True)
class RunContext:
    """What the supervisor of a run has at hand, from the first attempt to the last."""

    config: ClusterConfig
    run: RunFolder
    lease: Lease
    view: ClusterView
    supply: RankSupply
    workers: DataWorkers
    stop: StopRequests
    audience: Audience
    clock: SuspendAwareClock

    def leaving_nodes(self, used: Iterable[str]) -> list[Node]:
        """Those that are about to leave the cluster, of some and the one of this process."""
        own: str = ray.get_runtime_context().get_node_id()
        nodes = self.view.nodes()
        found = [nodes[node] for node in {own, *used} if node in nodes]
        return [node for node in found if node.leaves_at is not None]

    def lost_nodes(self, used: Collection[str]) -> set[str]:
        """Those of the nodes of a group that are lost, whether the head knows that yet or not.

        A node of which nothing is heard is taken for lost; never the one of this process.
        """
        others = set(used) - {ray.get_runtime_context().get_node_id()}
        silent = self.supply.silent_nodes(others)
        return silent | (others - self.view.fresh_nodes().keys())


class Attempt:
    """The supervision of one group."""

    def __init__(
        self,
        context: RunContext,
        group: RankGroup,
        committer: CheckpointCommitter,
        furthest_step: int,
    ) -> None:
        """furthest_step: the last one that any attempt has trained."""
        self.reached_step = 0  # the last one that the ranks have trained
        self.nodes_leave = False  # of the ranks, or of this process
        self._context = context
        self._group = group
        self._committer = committer
        self._furthest_step = furthest_step
        self._next_lease_check = 0.0
        self._next_room_check = 0.0
        self._next_workers_check = 0.0
        self._room_since: float | None = None
        self._reasons_told: set[str] = set()
        self._leave_by = math.inf

    def run(self) -> Outcome:
        """Returns when the ranks have left, or have been given long enough to.

        Raises:
            RankLostError: the group cannot go on, another one may.
            LeaseLostError: the run belongs to somebody else.
            ClusterError, DataError, ModelError, TrainerError: why the run cannot go on.
        """
        while True:
            self._group.wait(POLL_SECONDS)
            poll = self._group.poll()
            for rank, report in poll.reports:
                self._hear(rank, report)
            if poll.failure:
                raise self._with_stacks(poll.failure)
            if poll.outcomes is not None:
                assert len(set(poll.outcomes)) == 1, poll.outcomes
                self._committer.finish()
                if poll.outcomes[0] == "finished":
                    self._context.stop.let_outcome_stand()
                return poll.outcomes[0]
            now = self._context.clock.look()
            self._check_lease(now)
            self._ask_to_leave(now)
            if self._reasons_told and not self._group.trains:
                return "preempted"  # there is nothing to save
            if now > self._leave_by:
                self._context.audience.notice(
                    "the ranks have not left in time: they are killed, and what they did since "
                    "the newest checkpoint will be repeated"
                )
                return "preempted"
            self._scale_workers(now)

    def _with_stacks(self, failure: Exception) -> Exception:
        """The failure; if it is a hang, with word of where the stacks of all ranks are kept."""
        if not isinstance(failure, RankHungError):
            return failure
        context = self._context
        folder = keep_stacks(context.run, context.supply.stacks(), context.audience.notice)
        if folder is None:
            return failure
        return RankHungError(f"{failure}. Where each rank stood is in {folder}")

    def _hear(self, rank: int, report: Report) -> None:
        """Take note of what a rank says."""
        audience, committer = self._context.audience, self._committer
        if report.line:
            audience.line(report.line)
            if report.line["kind"] == "train":
                self._count_step(report.line["step"])
        if report.notice:
            audience.notice(f"rank {rank}: {report.notice}")
        if report.failed:
            step, reason = report.failed
            if committer.give_up(step):
                audience.notice(f"rank {rank}: {reason}")
        if report.state and committer.add(*report.state):
            audience.notice(f"checkpoint of step {report.state[1].step} is complete")

    def _count_step(self, step: int) -> None:
        # Spares take time to start: not before what was lost is made up for.
        if self.reached_step <= self._furthest_step < step:
            self._context.supply.refill_spares()
        self.reached_step = step

    def _check_lease(self, now: float) -> None:
        if now >= self._next_lease_check:
            self._next_lease_check = now + LEASE_CHECK_SECONDS
            with suppress(OSError):  # the file system may be away for a moment
                self._context.lease.check()

    def _ask_to_leave(self, now: float) -> None:
        """Ask the ranks to leave if there is a reason, and set the time by which they must."""
        for reason, seconds in self._reasons_to_leave(now):
            if reason in self._reasons_told:
                continue
            if not self._reasons_told:
                self._group.request_stop()
            self._reasons_told.add(reason)
            self._leave_by = min(self._leave_by, now + max(0.0, seconds))
            how = "after a checkpoint" if self._group.trains else "before they have begun"
            self._context.audience.notice(f"{reason}: the ranks leave {how}")

    def _reasons_to_leave(self, now: float) -> Iterator[tuple[str, float]]:
        """Each with the seconds that there are for it."""
        grace, stop = self._context.config.grace_seconds, self._context.stop
        if reason := stop.reason:
            assert stop.asked_at is not None
            yield reason, grace - (time.monotonic() - stop.asked_at)
        for node in self._context.leaving_nodes(self._group.nodes):
            assert node.leaves_at is not None
            self.nodes_leave = True
            seconds = node.leaves_at - time.time() - DRAIN_MARGIN_SECONDS
            yield f"node {node.name} is being drained", min(grace, seconds)
        if self._could_grow(now):
            yield "there is room for more ranks", math.inf

    def _could_grow(self, now: float) -> bool:
        """Whether there has been room for more ranks for long enough, while they trained."""
        ranks = len(self._group.nodes)
        if ranks == self._context.config.max_ranks or not self.reached_step:
            return False
        if now >= self._next_room_check:
            self._next_room_check = now + ROOM_CHECK_SECONDS
            if len(self._context.supply.offer(self._context.view.nodes())) <= ranks:
                self._room_since = None
            elif self._room_since is None:
                self._room_since = now
        return self._room_since is not None and now - self._room_since >= GROW_AFTER_SECONDS

    def _scale_workers(self, now: float) -> None:
        """Have as many data workers as the run's control file asks for, if there is one."""
        workers, audience = self._context.workers, self._context.audience
        before = list(workers.handles)
        wanted = None
        if now >= self._next_workers_check:
            self._next_workers_check = now + WORKERS_CHECK_SECONDS
            wanted = self._context.run.take_wanted_data_workers()
        if wanted is not None:
            nodes = self._context.view.nodes().values()
            audience.notice(workers.spread())
            audience.notice(f"wanted: {counted(wanted, 'data worker')}; there: {len(before)}")
            granted = workers.resize(wanted, [node for node in nodes if node.leaves_at is None])
            if granted < wanted:
                audience.notice(f"there are CPUs for {counted(granted, 'data worker')} only")
        workers.admit()
        if workers.handles != before:
            self._group.use_workers(workers.handles)
            audience.notice(f"data workers are now {numbers(workers.handles)}")
