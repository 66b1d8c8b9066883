"""Run attempts one after another until the run is finished or must leave.

Each attempt uses as many ranks as the cluster has capacity for, and resumes from the newest intact
checkpoint. An attempt ends early when a rank is lost, when a node leaves, or when there is capacity
for more ranks.

The run must leave the cluster after a stop request, when the node of this process is drained, or
when too few nodes remain after others have left.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.config import ClusterConfig
from cluster.errors import ClusterError, RankLostError
from cluster.health.unfit_nodes import UnfitNodes
from cluster.health.watchdog import HeartbeatSender
from cluster.node_check.report_text import summary, table
from cluster.node_check.verdicts import NODE_CHECK_REMEDY
from cluster.ranks.group import RankGroup
from cluster.ranks.node_agent import SilentNodesError
from cluster.ranks.node_memory import MemoryCheckpoint
from cluster.ray.cluster_view import Node
from cluster.ray.reservation import max_possible_ranks, node_capabilities
from cluster.recipe import Recipe
from cluster.supervision.attempt import RankAttempt, RunContext
from cluster.supervision.corruption_response import CorruptionResponse
from cluster.supervision.retry_budget import RankLosses
from cluster.supervision.run_checks import newest_checkpoint, start_cursor
from cluster.supervision.run_listener import NODE_EXCLUDED
from data_pipeline.config.corpus import is_remote
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.locations import cache_folder
from foundation.wording import counted, join_items
from trainer.checkpoints.committer import CheckpointCommitter
from trainer.corruption import SilentCorruptionError
from trainer.errors import DamagedCheckpointError
from trainer.rank.rank_job import RankJob
from trainer.rank.supervision import Outcome
from trainer.replay.replay_options import ReplayOptions
from trainer.runs.log import DETAIL
from trainer.runs.rank_nodes import write_rank_nodes
from trainer.runs.step_range import StepRange
from trainer.runs.warm_start import warm_start_of

WAIT_SECONDS = 0.5
# Seconds to wait for data workers that reserve CPUs, which they must do before the ranks.
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
        self._recipe = recipe
        self._manifest = manifest
        self._context = context
        self._profile = profile
        self._replay = replay
        self._session_started = time.time()
        # State of the previous attempt:
        self._ranks = 0
        self._nodes: dict[str, str] = {}  # names of its nodes, by node id
        self._rank_nodes: list[str] = []  # the node id of each of its ranks
        self._nodes_left = False  # whether nodes left at its end
        self._losses = RankLosses()
        self._corruption = CorruptionResponse(context)
        # Ranks hash a checkpoint while they start. After they find damage, the supervisor hashes
        # all files before the next start.
        self._damage_found = False
        self._restored: MemoryCheckpoint | None = None  # the memory checkpoint it started from

    def run(self) -> Outcome:
        """Train until the run is finished or must leave.

        Raises:
            RankLostError: ranks were lost repeatedly, without any progress in between.
            ClusterError: the cluster lacks capacity for the ranks, or the head is lost.
            LeaseLostError: another process owns the run now.
            DataError, ModelError, TrainerError: the run cannot continue.
        """
        outcome: Outcome = "preempted"
        with HeartbeatSender(lambda: self._context.workers.actors):
            while outcome == "preempted" and not self._should_stop():
                try:
                    group = self._wait_for_group()
                    if group is None:
                        break
                    outcome = self._attempt(group)
                except RankLostError as error:
                    self._context.supply.end_group()  # finds out which nodes do not answer
                    self._handle_rank_loss(error)
                except SilentNodesError as error:
                    self._context.listener.notice(f"{error}. {NODES_ASKED_AGAIN}")
                except SilentCorruptionError as error:
                    self._context.supply.end_group()  # no rank writes a checkpoint any more
                    self._context.vitals.attempt_ends(str(error))
                    self._corruption.respond(error.finding, self._rank_nodes)
                except DamagedCheckpointError as error:
                    remedy = self._handle_damage()
                    self._context.listener.notice(f"{error}. {remedy}")
                    self._context.vitals.attempt_ends(str(error))
                finally:
                    self._context.supply.end_group()
        self._context.listener.log_detail(f"{DETAIL}{self._context.workers.windows_read_text()}")
        return outcome

    def _should_stop(self) -> bool:
        return bool(self._context.stop.reason or self._context.leaving_nodes(used=()))

    def _wait_for_group(self) -> RankGroup | None:
        """Wait for capacity, and return a group of as many ranks as fit.

        Returns:
            The group, or None if the run must leave.
        """
        config, supply, notice = (
            self._context.config,
            self._context.supply,
            self._context.listener.notice,
        )
        if config.cpus_per_data_worker:
            self._wait_for_workers()
        since, told = time.monotonic(), False
        self._context.vitals.clear_ranks()
        while not self._should_stop():
            nodes = self._context.view.query_nodes()
            places = supply.offer(nodes)
            found = (
                f"there is capacity for {counted(len(places), 'rank')}, but the run needs at least "
                f"{config.min_ranks}"
            )
            if len(places) >= config.min_ranks:
                names = {node.id: node.name for node in nodes.values()}
                if group := supply.start_group(places, names):
                    self._nodes = {node: names[node] for node in group.nodes}
                    self._rank_nodes = list(group.nodes)
                    return group
                found = f"Ray has not placed {counted(len(places), 'rank')} despite free capacity"
            elif self._nodes_left:
                notice(f"{found}: the run leaves")
                return None
            if time.monotonic() - since > config.wait_for_ranks_seconds:
                raise no_capacity_error(
                    found, config, nodes, self._context.unfit, supply.silent_nodes(nodes)
                )
            if not told:
                told = True
                notice(
                    f"{found}: waiting for up to {config.wait_for_ranks_seconds:g} s"
                    + missing_capacity_text(config, nodes)
                )
            time.sleep(WAIT_SECONDS)
        return None

    def _wait_for_workers(self) -> None:
        """Release bundles until all data workers are placed and alive, for a limited time."""
        deadline = time.monotonic() + WORKERS_SECONDS
        while not self._context.workers.all_responsive():
            if time.monotonic() > deadline:
                self._context.listener.notice(
                    f"not all data workers have started within {WORKERS_SECONDS:g} s; the ranks "
                    "start without waiting for them"
                )
                return
            self._context.supply.release_bundles()

    def _attempt(self, group: RankGroup) -> Outcome:
        context, ranks = self._context, len(group.nodes)
        if given_up := context.workers.cancel_starting():
            context.listener.notice(
                f"{counted(given_up, 'data worker')} did not start in time and will not be "
                "started, as the ranks may need the resources. Request the data workers again"
            )
        context.lease.check()
        verified = self._damage_found or self._replay is not None
        self._damage_found = False
        checkpoint = newest_checkpoint(
            context.run, context.lease.work, self._manifest, context.listener, read_files=verified
        )
        if self._should_stop():
            return "preempted"
        start = checkpoint.step if checkpoint else 0
        self._restored = context.memory.newest(start, context.living_nodes)
        source = f" from the checkpoint of step {start}" if checkpoint else ""
        if self._restored:
            start, source = self._restored.step, f" from {self._restored.label}"
        context.vitals.memory_checkpoint(start if self._restored else None)
        self._losses.begin(start)
        context.listener.notice(f"starting {counted(ranks, 'rank')}{source}")
        work = context.lease.work.absolute()
        problems = context.supply.check_nodes(work, context.run)
        if context.remote and not problems:
            problems = context.remote.prepare_nodes(group.nodes, work)
        remedy = ""
        if not problems:
            problems, remedy = self._hardware_problems(), NODE_CHECK_REMEDY
        if problems:
            places = context.supply.offer(context.view.query_nodes())
            for notice in excluded_nodes_text(
                problems, len(places), context.config.min_ranks, remedy
            ):
                context.listener.notice(notice)
        if problems or self._should_stop():
            return "preempted"
        if self._ranks and ranks != self._ranks:
            context.listener.notice(f"resized from {self._ranks} to {counted(ranks, 'rank')}")
        self._ranks = ranks
        names = [self._nodes[node] for node in group.nodes]
        write_rank_nodes(context.run, names)
        context.vitals.attempt_begins(names)
        committer = CheckpointCommitter(
            context.lease,
            context.run.checkpoints,
            self._recipe.checkpoints,
            ranks,
            context.listener.notice,
            context.remote,
        )
        has_memory_tier = self._recipe.checkpoints.memory_every_steps and self._replay is None
        group.start(
            RankJob(
                recipe=self._recipe.training(),
                run=context.run.path.absolute(),
                manifest=self._manifest.header(),
                checkpoint=checkpoint.path.absolute() if checkpoint else None,
                cursor=start_cursor(self._recipe, self._manifest, self._restored or checkpoint),
                work=committer.work.absolute(),
                attempt=committer.attempt,
                url=context.run.url,
                states_url=context.remote.states_url if context.remote else None,
                session_started=self._session_started,
                verify_checkpoint=not verified or self._restored is not None,
                memory_checkpoint=self._restored,
                memory_name=(
                    context.memory.begin_attempt(committer.attempt, group.nodes, self._restored)
                    if has_memory_tier
                    else None
                ),
                warm_start=warm_start_of(
                    self._recipe, context.run, self._manifest, context.run.card().parent
                ),
                profile=self._profile,
                replay=self._replay,
            ),
            context.workers.handles,
        )
        attempt = RankAttempt(context, group, committer, self._losses.furthest_step)
        try:
            return attempt.run()
        finally:
            self._nodes_left = attempt.nodes_leave
            self._losses.reach(max(attempt.reached_step, committer.newest_step))

    def _hardware_problems(self) -> list[str]:
        """Check nodes that were not checked before; return the problems of those that fail."""
        listener = self._context.listener
        report = self._context.supply.check_hardware(
            hardware_check_folders(self._recipe, self._context.lease.work), self._should_stop
        )
        if report is None or not report.checked:
            return []
        listener.notice(summary(report))
        listener.log_detail("\n".join(f"{DETAIL}{line}" for line in table(report)))
        for warning in [*report.warnings, *(v.text for v in report.verdicts if not v.fails)]:
            listener.notice(warning)
        return [verdict.text for verdict in report.verdicts if verdict.fails]

    def _handle_damage(self) -> str:
        """Prepare the next start after ranks found damage; return the remedy, in words."""
        if self._restored:
            self._context.memory.drop()
            return "The checkpoint on disk will be used"
        self._damage_found = True
        return "All checkpoints will be verified"

    def _handle_rank_loss(self, error: RankLostError) -> None:
        lost = self._context.lost_nodes(self._nodes)
        notice = self._losses.take(error, {node: self._nodes[node] for node in lost})
        self._context.listener.notice(notice)
        self._context.vitals.attempt_ends(str(error))
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
