"""Run attempts one after another until the run is finished or must leave.

Each attempt uses as many ranks as the cluster has capacity for, and resumes from the newest intact
checkpoint. An attempt ends early when a rank is lost, when a node leaves, or when there is capacity
for more ranks. It passes through the states of `run_states`, for each of which `RestartLoop` has a
method. A state that waits also checks whether the run must leave.

The run must leave the cluster after a stop request, when the node of this process is drained, or
when too few nodes remain after others have left.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cluster.config import ClusterConfig
from cluster.errors import ClusterError, RankLostError
from cluster.health.unfit_nodes import UnfitNodes
from cluster.health.watchdog import HeartbeatSender
from cluster.node_check.verdicts import NODE_CHECK_REMEDY
from cluster.ranks.agent_client import SilentNodesError
from cluster.ranks.group import RankGroup
from cluster.ray.cluster_view import Node
from cluster.ray.reservation import max_possible_ranks, node_capabilities
from cluster.recipe import Recipe
from cluster.supervision.attempt import RankAttempt, RunContext
from cluster.supervision.corruption_response import CorruptionResponse
from cluster.supervision.rank_jobs import RankJobs, RankStart
from cluster.supervision.retry_budget import RankLosses
from cluster.supervision.run_checks import newest_checkpoint
from cluster.supervision.run_listener import NODE_EXCLUDED
from cluster.supervision.run_states import (
    CheckNodes,
    EndAttempt,
    Ended,
    RunState,
    StartRanks,
    TrainRanks,
    WaitForCapacity,
)
from data_pipeline.config.corpus import is_remote
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.locations import cache_folder
from foundation.wording import counted, join_items
from run_store.checkpoints.committer import CheckpointCommitter
from run_store.errors import DamagedCheckpointError
from run_store.folder import RunFolder, StepRange
from run_store.record.corruption import ReductionError, SilentCorruptionError
from run_store.record.hang import HangFinding
from run_store.record.log import DETAIL
from trainer.job.rank_job import Outcome, ReplayOptions

WAIT_SECONDS = 0.5
# Seconds to wait for data workers that reserve CPUs, because they must reserve before the ranks do.
WORKERS_SECONDS = 10.0
NODES_ASKED_AGAIN = "No rank starts there until it answers; meanwhile the run waits for capacity"


class RestartLoop:
    """Loop that restarts the ranks of a run until it is finished or must leave."""

    def __init__(
        self,
        recipe: Recipe,
        manifest: Manifest,
        context: RunContext,
        profile: StepRange | None = None,
        replay: ReplayOptions | None = None,
    ) -> None:
        self._context = context
        run = RunFolder(context.run.path.absolute(), context.run.url)
        self._jobs = RankJobs(recipe, manifest, run, profile, replay)
        self._ranks = 0  # the number of ranks that started last
        self._losses = RankLosses()
        self._corruption = CorruptionResponse(context)
        self._hang: HangFinding | None = None  # the last hang, until ranks have recorded it
        self._resize_reason: str | None = None  # why the last attempt was resized, if so

    def run(self) -> Outcome:
        """Train until the run is finished or must leave.

        Raises:
            RankLostError: ranks were lost repeatedly, without any progress in between.
            ClusterError: the cluster lacks capacity for the ranks, or the head is lost.
            LeaseLostError: another process owns the run now.
            DataError, ModelError, RunError: the run cannot continue.
        """
        state: RunState | Ended = WaitForCapacity()
        self._context.supply.give_up = self._should_stop
        self._context.supply.max_ranks = lambda: self._context.share.max_ranks
        with HeartbeatSender(lambda: self._context.workers.actors):
            while not isinstance(state, Ended):
                self._context.status.state_begins(state.name)
                state = self._next(state)
        self._context.listener.log_detail(f"{DETAIL}{self._context.workers.windows_read_text()}")
        return state.outcome

    def _next(self, state: RunState) -> RunState | Ended:
        """Do the work of a state, and return the next state."""
        if isinstance(state, EndAttempt):
            return self._end_attempt(state)
        try:
            match state:
                case WaitForCapacity():
                    return self._wait_for_capacity(state)
                case CheckNodes():
                    return self._check_nodes(state)
                case StartRanks():
                    return self._start_ranks(state)
                case TrainRanks():
                    return self._train(state)
        except BaseException as error:  # is handled after the ranks have ended
            return EndAttempt(state, error=error)

    def _should_stop(self) -> bool:
        return bool(self._context.stop.reason or self._context.leaving_nodes(used=()))

    def _wait_for_capacity(self, state: WaitForCapacity) -> CheckNodes | Ended:
        """Wait until enough ranks fit; the run ends if it must leave."""
        context, config = self._context, self._context.config
        if config.cpus_per_data_worker and not self._should_stop():
            self._wait_for_workers()
        since, is_announced = time.monotonic(), False
        context.status.clear_ranks()
        while not self._should_stop():
            nodes = context.view.query_nodes(self._should_stop)
            if self._should_stop():
                break
            places = context.supply.offer(nodes)
            shortage = (
                f"there is capacity for {counted(len(places), 'rank')}, but the run needs at least "
                f"{config.min_ranks}"
            )
            if len(places) >= config.min_ranks:
                names = {node.id: node.name for node in nodes.values()}
                if group := context.supply.start_group(places, names):
                    used = {node: names[node] for node in group.nodes}
                    return CheckNodes(group, used, state.nodes_left, state.damage_found)
                shortage = (
                    f"Ray has not placed {counted(len(places), 'rank')} despite free capacity"
                )
            elif state.nodes_left:
                context.listener.notice(f"{shortage}: the run leaves")
                break
            if time.monotonic() - since > config.wait_for_ranks_seconds:
                silent = context.supply.silent_nodes(nodes)
                raise no_capacity_error(shortage, config, nodes, context.unfit, silent)
            if not is_announced:
                is_announced = True
                context.listener.notice(
                    f"{shortage}: waiting for up to {config.wait_for_ranks_seconds:g} s"
                    + missing_capacity_text(config, nodes)
                )
            time.sleep(WAIT_SECONDS)
        return Ended()

    def _wait_for_workers(self) -> None:
        """Release bundles until all data workers are placed and alive, for a limited time."""
        deadline = time.monotonic() + WORKERS_SECONDS
        while not (self._should_stop() or self._context.workers.all_responsive()):
            if time.monotonic() > deadline:
                self._context.listener.notice(
                    f"not all data workers have started within {WORKERS_SECONDS:g} s; the ranks "
                    "start without waiting for them"
                )
                return
            self._context.supply.release_bundles()

    def _check_nodes(self, state: CheckNodes) -> StartRanks | EndAttempt:
        """Choose the state from which the ranks start, and check their nodes."""
        context, jobs = self._context, self._jobs
        if given_up := context.workers.cancel_starting():
            context.listener.notice(
                f"{counted(given_up, 'data worker')} did not start in time and will not be "
                "started, as the ranks may need the resources. Request the data workers again"
            )
        context.lease.check()
        is_verified = state.damage_found or jobs.replay is not None
        work, listener = context.lease.work, context.listener
        checkpoint = newest_checkpoint(
            context.run, work, jobs.manifest, listener, read_files=is_verified
        )
        if self._should_stop():
            return EndAttempt(state)
        start = RankStart(checkpoint, is_verified=is_verified)
        start = replace(start, memory=context.memory.newest(start.step, context.living_nodes))
        context.status.memory_checkpoint(start.step if start.memory else None)
        self._losses.begin(start.step)
        listener.notice(f"starting {counted(len(state.group.nodes), 'rank')}{start.source}")
        problems = self._node_problems(state.group)
        if problems or self._should_stop():
            return EndAttempt(state)
        return StartRanks(state.group, state.node_names, state.nodes_left, start)

    def _node_problems(self, group: RankGroup) -> list[str]:
        """Check the nodes of a group; report and return the problems of those that are unfit.

        Raises:
            ClusterError: the other nodes have capacity for too few ranks.
        """
        context, remedy = self._context, ""
        work = context.lease.work.absolute()
        problems = context.supply.check_nodes(work, context.run)
        if context.remote and not problems:
            problems = context.remote.prepare_nodes(group.nodes, work)
        if not problems:
            problems, remedy = self._hardware_problems(), NODE_CHECK_REMEDY
        if problems:
            room = len(context.supply.offer(context.view.query_nodes()))
            for notice in excluded_nodes_text(problems, room, context.config.min_ranks, remedy):
                context.listener.notice(notice)
        return problems

    def _hardware_problems(self) -> list[str]:
        """Check nodes that were not checked before; return the problems of those that fail."""
        listener = self._context.listener
        folders = hardware_check_folders(self._jobs.recipe, self._context.lease.work)
        report = self._context.supply.check_hardware(folders)
        if report is None or not report.checked:
            return []
        listener.notice(report.summary())
        listener.log_detail("\n".join(f"{DETAIL}{line}" for line in report.table()))
        for warning in [*report.warnings, *(v.text for v in report.verdicts if not v.fails)]:
            listener.notice(warning)
        return [verdict.text for verdict in report.verdicts if verdict.fails]

    def _start_ranks(self, state: StartRanks) -> TrainRanks:
        """Give the ranks their job, and record where they are."""
        context, group, checkpoints = self._context, state.group, self._jobs.recipe.checkpoints
        ranks, notice = len(group.nodes), context.listener.notice
        if self._ranks and ranks != self._ranks:
            notice(f"resized from {self._ranks} to {counted(ranks, 'rank')}")
        self._ranks = ranks
        names = [state.node_names[node] for node in group.nodes]
        context.status.attempt_begins(names)
        committer = CheckpointCommitter(
            context.lease, context.run.checkpoints, checkpoints, ranks, notice, context.remote
        )
        memory_name = None
        if checkpoints.memory_every_steps and self._jobs.replay is None:
            memory_name = context.memory.begin_attempt(
                committer.attempt, group.nodes, state.start.memory
            )
        job = self._jobs.job(state.start, committer, memory_name, self._hang, self._resize_reason)
        group.start(job, context.workers.handles)
        attempt = RankAttempt(context, group, committer, self._losses.furthest_step)
        return TrainRanks(group, state.node_names, state.start, attempt)

    def _train(self, state: TrainRanks) -> EndAttempt:
        """Supervise the ranks until they end."""
        attempt = state.attempt
        try:
            return EndAttempt(state, attempt.run())
        finally:
            self._losses.reach(max(attempt.reached_step, attempt.committer.newest_step))
            if attempt.hang or attempt.reached_step:
                self._hang = attempt.hang
            if attempt.resize_reason or attempt.reached_step:
                self._resize_reason = attempt.resize_reason

    def _end_attempt(self, state: EndAttempt) -> WaitForCapacity | Ended:
        """End the ranks, and prepare the next start if there is one.

        Raises:
            BaseException: the error of the state, if a restart does not help.
        """
        context, before = self._context, state.before
        damage_found = isinstance(before, WaitForCapacity) and before.damage_found
        context.supply.end_group()  # no rank writes a checkpoint any more
        match state.error:
            case None:
                if state.outcome != "stopped":
                    return Ended(state.outcome)
            case RankLostError() as error:
                self._handle_rank_loss(error, before.node_names)
            case ReductionError() as error if isinstance(before, TrainRanks):
                self._handle_rank_loss(error, before.node_names)
            case SilentNodesError() as error:
                context.listener.notice(f"{error}. {NODES_ASKED_AGAIN}")
            case SilentCorruptionError() as error if isinstance(before, TrainRanks):
                context.status.attempt_ends(str(error))
                self._corruption.respond(error.finding, before.group.nodes)
            case DamagedCheckpointError() as error if isinstance(before, TrainRanks):
                damage_found = before.start.memory is None
                self._handle_damage(error, damage_found)
            case error:
                raise error
        return Ended() if self._should_stop() else WaitForCapacity(before.nodes_left, damage_found)

    def _handle_damage(self, error: DamagedCheckpointError, is_on_disk: bool) -> None:
        if is_on_disk:
            remedy = "All checkpoints will be verified"
        else:
            self._context.memory.drop()
            remedy = "The checkpoint on disk will be used"
        self._context.listener.notice(f"{error}. {remedy}")
        self._context.status.attempt_ends(str(error))

    def _handle_rank_loss(
        self, error: RankLostError | ReductionError, node_names: Mapping[str, str]
    ) -> None:
        lost = self._context.lost_nodes(node_names.keys())
        notice = self._losses.take(error, {node: node_names[node] for node in lost})
        self._context.listener.notice(notice)
        self._context.status.attempt_ends(str(error))
        if error.__cause__:  # a rank's error, with the traceback on its node
            self._context.listener.log_detail(str(error.__cause__))


def no_capacity_error(
    found: str,
    config: ClusterConfig,
    nodes: Mapping[str, Node],
    unfit: UnfitNodes,
    silent: Sequence[str] = (),
) -> ClusterError:
    """Return the error of a run that has waited too long for capacity.

    Args:
        found: the available capacity, as text.
        unfit: nodes that the run does not use.
        silent: the names of nodes that do not answer.
    """
    left_out = f". Not used: {unfit.text}" if len(unfit) else ""
    if silent:
        left_out += (
            f". Without an answer: {join_items(silent)}; check their load and Ray's logs there"
        )
    cpus, gpus = (_total(nodes, resource) for resource in ("CPU", "GPU"))
    return ClusterError(
        f"After {config.wait_for_ranks_seconds:g} s {found}, each with {_of_a_rank(config)}. The "
        f"cluster has {counted(cpus, 'CPU')} and {counted(gpus, 'GPU')} in total, free or in use"
        f"{missing_capacity_text(config, nodes)}{left_out}. "
        "Wait for other jobs to end (`transloom jobs list` shows them), add nodes, or lower "
        "cluster.ranks. Then run the command again"
    )


def missing_capacity_text(config: ClusterConfig, nodes: Mapping[str, Node]) -> str:
    """Return an explanation if the nodes can never hold the minimum of ranks, or an empty text."""
    most = max_possible_ranks(config, nodes.values())
    if most >= config.min_ranks:
        return ""
    return (
        f". Its nodes can never hold more than {counted(most, 'rank')} with "
        f"{_of_a_rank(config)}: {node_capabilities(nodes.values())}"
    )


def _of_a_rank(config: ClusterConfig) -> str:
    """Describe the resources of a rank."""
    parts = [counted(config.cpus_per_rank, "CPU"), counted(config.gpus_per_rank, "GPU")]
    parts += [f"{name} {n:g}" for name, n in config.resources_per_rank.items()]
    labels = join_items(f"{key}={value}" for key, value in config.node_labels.items())
    where = f", on a node with the labels {labels}" if config.node_labels else ""
    return f"{', '.join(parts[:-1])} and {parts[-1]}{where}"


def hardware_check_folders(recipe: Recipe, run: Path) -> dict[str, Path]:
    """Return the folders whose storage a node check measures, by their names in messages."""
    folders = {"run folder": run.absolute()}
    if is_remote(recipe.data.dataset):
        folders["shard cache"] = cache_folder(recipe.data.cache)
    return folders


def excluded_nodes_text(
    problems: list[str], room: int, min_ranks: int, remedy: str = ""
) -> list[str]:
    """Return the notices of a run that continues without unfit nodes.

    Args:
        problems: the problem of each unfit node.
        room: the number of ranks that fit into the other nodes.
        min_ranks: the minimum number of ranks of the run.
        remedy: what to do if the other nodes are too few, besides the remedy for each node.

    Raises:
        ClusterError: the other nodes have capacity for fewer ranks than the run needs.
    """
    if room < min_ranks:
        raise ClusterError(
            f"{'. '.join(problems)}. The other nodes have capacity for {counted(room, 'rank')}, "
            f"but the run needs at least {min_ranks}{remedy}"
        )
    return [f"{problem}. {NODE_EXCLUDED}" for problem in problems]


def _total(nodes: Mapping[str, Node], resource: str) -> float:
    return sum(node.total.get(resource, 0.0) for node in nodes.values())
