"""One attempt at a run: the supervision of a group of ranks until it finishes, fails or must leave.

Every tenth of a second, the supervisor collects the ranks' reports, commits complete checkpoints,
and checks for a reason to end the attempt. Reasons are a request to stop, a node that is about to
leave, and capacity for more ranks.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import ray

from cluster.config import ClusterConfig
from cluster.data.workers import DataWorkers, WorkerMonitor, worker_numbers
from cluster.errors import RankHungError
from cluster.health.collectives import find_absent_ranks
from cluster.health.failures import is_permanent
from cluster.health.hang_detector import Position
from cluster.health.stacks import attach_stacks
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.health.unfit_nodes import UnfitNodes
from cluster.ranks.group import RankGroup
from cluster.ranks.rank_pool import RankPool
from cluster.ranks.reports import (
    Detail,
    MemoryFailed,
    MemoryWritten,
    Notice,
    RecordedLine,
    Report,
    StateFailed,
    StateWritten,
)
from cluster.ray.cluster_view import ClusterView, Node
from cluster.supervision.attempt_end import (
    MORE_ROOM,
    RankShutdown,
    ScaleUpTimer,
    ShutdownReason,
    node_drain_reason,
    stop_request_reason,
)
from cluster.supervision.interval import Interval
from cluster.supervision.memory_tier import MemoryTier
from cluster.supervision.node_samples import NodeSampler
from cluster.supervision.owned_run import RemoteRun
from cluster.supervision.run_listener import RunListener
from cluster.supervision.share_target import FollowedTarget
from cluster.supervision.status_writer import StatusWriter
from cluster.supervision.stop_requests import StopRequests
from foundation.wording import counted
from run_store.checkpoints.committer import CheckpointCommitter
from run_store.folder import RunFolder
from run_store.lease import Lease
from run_store.record.hang import HangFinding
from run_store.record.log import DETAIL
from run_store.record.metrics_lines import RankHung, TrainLine
from run_store.record.vitals import SupervisorState
from trainer.job.rank_job import Outcome

POLL_SECONDS = 0.1
LEASE_CHECK_SECONDS = 5.0
WORKERS_CHECK_SECONDS = 0.5
VITALS_SECONDS = 2.0


@dataclass(frozen=True)
class RunContext:
    """Objects that the supervisor of a run keeps for all attempts."""

    config: ClusterConfig
    run: RunFolder
    lease: Lease
    view: ClusterView
    supply: RankPool
    memory: MemoryTier
    workers: DataWorkers
    stop: StopRequests
    listener: RunListener
    status: StatusWriter
    clock: SuspendAwareClock
    unfit: UnfitNodes
    share: FollowedTarget
    remote: RemoteRun | None = None  # None unless the run is in an object store

    def leaving_nodes(self, used: Iterable[str]) -> list[Node]:
        """Return the nodes about to leave the cluster, among `used` and this process's node."""
        own: str = ray.get_runtime_context().get_node_id()
        nodes = self.view.nodes()
        found = [nodes[node] for node in {own, *used} if node in nodes]
        return [node for node in found if node.leaves_at is not None]

    def lost_nodes(self, used: Collection[str]) -> set[str]:
        """Return the lost nodes of a group, even if the head still lists them.

        A node whose agent does not answer is considered lost. The node of this process is never
        considered lost.
        """
        others = set(used) - {ray.get_runtime_context().get_node_id()}
        silent = self.supply.unresponsive_nodes(others)
        return silent | (others - self.view.query_nodes().keys())

    def living_nodes(self, nodes: set[str]) -> set[str]:
        """Return those of `nodes` that are not lost."""
        return nodes - self.lost_nodes(nodes)


class RankAttempt:
    """Supervision of one group of ranks."""

    def __init__(
        self,
        context: RunContext,
        group: RankGroup,
        committer: CheckpointCommitter,
        furthest_step: int,
    ) -> None:
        """Prepare the supervision of a started group.

        Args:
            furthest_step: the last step that any attempt has trained.
        """
        self.reached_step = 0  # the last step that the ranks have trained
        self.nodes_leave = False  # whether a node of the ranks or of this process leaves
        self.hang: HangFinding | None = None  # the hang, if the ranks hung
        self.resize_reason: str | None = None  # the reason, if the number of ranks must change
        self.committer = committer
        self._context = context
        self._group = group
        self._furthest_step = furthest_step
        self._lease_checks = Interval(LEASE_CHECK_SECONDS)
        self._workers_checks = Interval(WORKERS_CHECK_SECONDS)
        self._node_samples = NodeSampler(
            context.run, context.supply, context.config.node_usage_seconds
        )
        self._vitals_checks = Interval(VITALS_SECONDS)
        self._worker_monitor = WorkerMonitor()
        self._scale_up_timer = ScaleUpTimer()
        self._shutdown = RankShutdown()

    def run(self) -> Outcome:
        """Supervise until the ranks have left, or until their deadline to leave has passed.

        Raises:
            RankLostError: the group cannot continue, but another one may.
            LeaseLostError: another process owns the run now.
            ClusterError, DataError, ModelError, RunError: the run cannot continue.
        """
        while True:
            self._group.wait(POLL_SECONDS)
            poll = self._group.poll()
            for rank, report in poll.reports:
                self._handle_report(rank, report)
            if poll.failure or poll.outcomes is not None:
                self._context.status.state_begins("ending")
            if poll.failure:
                raise self._failure(poll.failure)
            if poll.outcomes is not None:
                return self._finish(poll.outcomes)
            now = self._context.clock.poll()
            self._context.status.state_begins(self.state)
            self._node_samples.poll(now, max(self.reached_step, self._furthest_step))
            self._check_lease(now)
            self._ask_to_leave(now)
            if self._are_to_be_killed(now):
                return "stopped"
            self._take_published()
            self._scale_workers(now)
            self._poll_memory()
            self._collect_vitals(now)

    @property
    def state(self) -> SupervisorState:
        """State of the ranks: they start, train, or have been asked to leave."""
        if self._shutdown.has_begun:
            return "ending"
        return "training" if self._group.is_training else "starting_ranks"

    def _failure(self, failure: Exception) -> Exception:
        """Collect what the ranks left behind, and return their failure with the stacks."""
        context = self._context
        if context.remote and is_permanent(failure):
            context.remote.collect_finally()
        records: dict[int, bytes] = {}
        if isinstance(failure, RankHungError):
            records = context.supply.collectives()
            failure = self._explain_hang(failure, records)
        collect, notice = context.supply.stacks, context.listener.notice
        return attach_stacks(failure, context.run, collect, notice, records)

    def _explain_hang(self, failure: RankHungError, records: Mapping[int, bytes]) -> RankHungError:
        """Report the first collective that a rank did not enter, and prepend it to the message."""
        positions = [position for position, _ in self._group.heartbeats()]
        self.hang = find_absent_ranks(records, positions, self._group.node_names)
        step = max(self.reached_step, self._furthest_step)
        self._context.listener.line(RankHung.of(self.hang, step))
        return RankHungError(f"{self.hang.text}. {failure}")

    def _finish(self, outcomes: list[Outcome]) -> Outcome:
        """Commit what the ranks have written, and return their outcome."""
        assert len(set(outcomes)) == 1, outcomes
        if self._context.remote:
            self._context.remote.collect_finally()
        for step in self.committer.finish():
            self._report_checkpoint(step)
        if outcomes[0] == "finished":
            self._context.stop.ignore_requests()
        return outcomes[0]

    def _are_to_be_killed(self, now: float) -> bool:
        """Return whether ranks that were asked to leave have nothing to save, or are overdue."""
        if self._shutdown.has_begun and not self._group.is_training:
            return True
        if self._shutdown.is_overdue(now):
            self._context.listener.notice(
                "the ranks have not left in time and are killed; the steps since the newest "
                "checkpoint will be repeated"
            )
            return True
        return False

    def _handle_report(self, rank: int, report: Report) -> None:
        """Process one report of a rank."""
        listener, committer = self._context.listener, self.committer
        vitals = self._context.status
        match report:
            case Position(phase="save", step=step):
                vitals.checkpoint_begins(step)
            case RecordedLine(line):
                listener.line(line)
                if isinstance(line, TrainLine):
                    self._count_step(line.step)
            case Notice(text):
                listener.notice(f"rank {rank}: {text}")
            case Detail(text):
                listener.log_detail(f"{DETAIL}rank {rank}: {text}")
            case StateFailed(step, reason):
                vitals.checkpoint_ends(step)
                if committer.give_up(step):
                    listener.notice(f"rank {rank}: {reason}")
            case MemoryWritten(memory_file, header):
                self._context.memory.written(rank, memory_file, header)
            case MemoryFailed(step):
                self._context.memory.failed(step)
            case StateWritten(file, header):
                if committer.add(file, header):
                    self._report_checkpoint(header.step)

    def _take_published(self) -> None:
        for step in self.committer.take_published():
            self._report_checkpoint(step)

    def _report_checkpoint(self, step: int) -> None:
        self._context.status.checkpoint_ends(step)
        self._context.listener.notice(f"checkpoint of step {step} is complete")

    def _count_step(self, step: int) -> None:
        # Spares slow training while they start, so they start only once the lost steps are
        # repeated.
        if self.reached_step <= self._furthest_step < step:
            self._context.supply.refill_spares()
        self.reached_step = step
        self._context.memory.step_trained()

    def _poll_memory(self) -> None:
        """Report progress of the memory tier to the ranks and to the displays of the run."""
        if steps := self._context.memory.poll():
            self._group.report_memory_steps(steps)
            self._context.status.memory_checkpoint(steps.held)

    def _check_lease(self, now: float) -> None:
        if self._lease_checks.has_passed(now):
            with suppress(OSError):  # the file system may be unavailable for a moment
                self._context.lease.check()

    def _ask_to_leave(self, now: float) -> None:
        """Ask the ranks to leave if there is a reason."""
        for reason in self._reasons_to_leave(now):
            had_begun = self._shutdown.has_begun
            if self._shutdown.add(reason, now):
                how = "after a checkpoint" if self._group.is_training else "before they have begun"
                self._context.listener.notice(f"{reason.text}: the ranks leave {how}")
                self._context.status.attempt_ends(reason.text)
                if not had_begun:
                    self._group.request_stop()

    def _reasons_to_leave(self, now: float) -> Iterator[ShutdownReason]:
        grace, stop = self._context.config.grace_seconds, self._context.stop
        if request := stop.reason:
            assert stop.asked_at is not None
            yield stop_request_reason(request, time.monotonic() - stop.asked_at, grace)
        for node in self._context.leaving_nodes(self._group.nodes):
            self.nodes_leave = True
            yield node_drain_reason(node, time.time(), grace)
        self.resize_reason = self.resize_reason or self._resize_reason(now)
        if self.resize_reason:
            yield ShutdownReason(self.resize_reason)

    def _resize_reason(self, now: float) -> str | None:
        """Return why another number of ranks should train; None if the number is right."""
        ranks, share = len(self._group.nodes), self._context.share
        target = share.target
        if target and ranks > share.max_ranks:
            return f"{target.reason}: this run gives {counted(ranks - share.max_ranks, 'rank')}"
        if ranks >= share.max_ranks or not self.reached_step:
            return None
        supply, view = self._context.supply, self._context.view
        at_once = target is not None and target.grows_at_once
        if not self._scale_up_timer.is_due(
            ranks, lambda: len(supply.offer(view.nodes())), now, at_once=at_once
        ):
            return None
        return f"{target.reason}: {MORE_ROOM}" if target else MORE_ROOM

    def _scale_workers(self, now: float) -> None:
        """Scale the data workers to the number in the run's control file, if it exists."""
        workers, listener = self._context.workers, self._context.listener
        before = list(workers.handles)
        wanted = None
        if self._workers_checks.has_passed(now):
            wanted = self._context.run.take_data_workers_request()
        if wanted is not None:
            nodes = self._context.view.nodes().values()
            listener.notice(workers.windows_read_text())
            listener.notice(f"requested: {counted(wanted, 'data worker')}; now: {len(before)}")
            granted = workers.resize(wanted, [node for node in nodes if node.leaves_at is None])
            if granted < wanted:
                listener.notice(f"free CPUs suffice for {counted(granted, 'data worker')} only")
        workers.admit()
        if workers.handles != before:
            self._group.use_workers(workers.handles)
            listener.notice(f"data workers are now {worker_numbers(workers.handles)}")

    def _collect_vitals(self, now: float) -> None:
        """Record the activity of ranks and data workers for the displays of the run."""
        if self._vitals_checks.has_passed(now):
            context = self._context
            names = {node.id[:8]: node.name for node in context.view.nodes().values()}
            heartbeats = self._worker_monitor.poll(context.workers.handles, now)
            context.status.update_ranks(self._group.heartbeats())
            context.status.update_workers(heartbeats, names)
