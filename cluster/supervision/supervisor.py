"""The supervisor of a run: the driver process.

The supervisor owns the run for as long as it lives. It starts data workers and ranks, commits the
checkpoints that the ranks write, and restarts the ranks when one of them is lost. It also restarts
a lost embedded Ray. This module builds all parts of the supervisor, one line each.
"""

from dataclasses import dataclass
from functools import partial

from cluster.config import ClusterConfig
from cluster.data.workers import DataWorkers
from cluster.errors import EmbeddedRayError
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.ranks.rank_pool import RankPool
from cluster.ray.cluster_view import ClusterView
from cluster.ray.embedded import EmbeddedRay, require_gpus
from cluster.ray.open_endpoints import report_exposure
from cluster.ray.private import machine_cpus
from cluster.ray.session import ray_session
from cluster.recipe import Recipe
from cluster.supervision.attempt import RunContext
from cluster.supervision.memory_tier import MemoryTier
from cluster.supervision.owned_run import OwnedRun, RemoteRun, own_run
from cluster.supervision.ray_metrics import RayMetrics
from cluster.supervision.restart_loop import RestartLoop
from cluster.supervision.retry_budget import SESSIONS_WITHOUT_PROGRESS, RetryBudget
from cluster.supervision.run_checks import is_run_complete
from cluster.supervision.run_listener import RunListener
from cluster.supervision.share_target import FollowedTarget
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from foundation.wording import counted, format_value
from run_store.folder import RunFolder, StepRange
from run_store.record.log import INTERRUPTED
from run_store.record.metrics_file import recorded_step
from trainer.job.rank_job import Outcome, ReplayOptions
from trainer.process.host_memory import allocator_environment


@dataclass(frozen=True)
class SupervisionOptions:
    """Options for supervising a run.

    Attributes:
        profile: the steps to profile, or None.
        strict: whether to refuse a cluster that other users can reach.
        replay: options to train in a scratch folder, only to compare and inspect steps, or None.
    """

    profile: StepRange | None = None
    strict: bool = False
    replay: ReplayOptions | None = None


def supervise(
    recipe: Recipe,
    run: RunFolder,
    store: DatasetStore,
    manifest: Manifest,
    listener: RunListener,
    options: SupervisionOptions,
) -> Outcome:
    """Train a run under Ray until it is finished or must leave.

    Raises:
        RunInUseError: another process trains the run.
        ClusterError, DataError, ModelError, RunError: the run cannot continue.
    """
    try:
        with own_run(recipe, run, store, manifest, listener) as owned:
            return _train_in_sessions(owned, options)
    except KeyboardInterrupt:
        listener.notice(INTERRUPTED)
        return "stopped"


def _train_in_sessions(owned: OwnedRun, options: SupervisionOptions) -> Outcome:
    """Train in one session of Ray after another, until one ends without a loss of Ray."""
    run, stop, listener = owned.folder, owned.stop, owned.listener
    sessions = RetryBudget(SESSIONS_WITHOUT_PROGRESS, recorded_step(run.metrics))
    while not is_run_complete(owned.recipe, run, owned.lease.work, owned.manifest, listener):
        owned.status.state_begins("starting_ray")
        try:
            return _train_in_session(owned, options)
        except EmbeddedRayError as error:
            if stop.reason:
                listener.notice(f"{error}; {stop.reason}: the run leaves")
                return "stopped"
            sessions.reach(recorded_step(run.metrics))
            if sessions.count_failure():
                raise EmbeddedRayError(
                    f"{error}. {sessions.used_up_text('sessions of Ray')}. Fix the cause, "
                    "then run the same command again to continue from the newest "
                    "checkpoint; --inline trains without Ray"
                ) from error
            owned.status.attempt_ends(str(error))
            listener.notice(f"{error}; restarting Ray")
            stop.accept_requests()
    return "finished"


def _train_in_session(owned: OwnedRun, options: SupervisionOptions) -> Outcome:
    """Train in one session of an embedded Ray or of a joined cluster, and end the session."""
    recipe, run, listener = owned.recipe, owned.folder, owned.listener
    report_open_endpoints = partial(report_exposure, strict=options.strict, notice=listener.notice)
    config = _on_this_machine(recipe.cluster, listener)
    clock = SuspendAwareClock()
    environment = allocator_environment(shapes_recur=not recipe.tokenizer.sampling.alpha)
    with (
        ray_session(config.address, _embedded_ray(config, listener), report_open_endpoints),
        ClusterView(config.wait_for_head_seconds, listener.notice) as view,
        RankPool(config, clock, environment, owned.status.unfit) as supply,
        RayMetrics(run.path, config.address),
    ):
        require_gpus(config.least_gpus)
        context = RunContext(
            config=config,
            run=run,
            lease=owned.lease,
            view=view,
            supply=supply,
            memory=MemoryTier(supply, listener.notice),
            workers=_start_workers(owned, config),
            stop=owned.stop,
            listener=listener,
            status=owned.status,
            clock=clock,
            unfit=owned.status.unfit,
            share=FollowedTarget(run.path, config),
            remote=RemoteRun(owned.mirror, supply) if owned.mirror else None,
        )
        profile, replay = options.profile, options.replay
        try:
            return RestartLoop(recipe, owned.manifest, context, profile, replay).run()
        finally:
            owned.stop.ignore_requests()


def _start_workers(owned: OwnedRun, config: ClusterConfig) -> DataWorkers:
    """Start the first data workers without waiting for them."""
    workers = DataWorkers(
        owned.recipe.data_settings,
        owned.manifest.identity,
        cpus=config.cpus_per_data_worker,
        cache_bytes=config.data_memory_bytes,
    )
    workers.start(config.data_workers)
    return workers


def _on_this_machine(config: ClusterConfig, listener: RunListener) -> ClusterConfig:
    """Remove settings that apply only to nodes of a cluster, unless the run joins one."""
    of_clusters = {
        "node_labels": config.node_labels,
        "resources_per_rank": config.resources_per_rank,
    }
    given = {name: value for name, value in of_clusters.items() if value}
    if config.address is not None or not given:
        return config
    told = " and ".join(f"cluster.{name} ({format_value(value)})" for name, value in given.items())
    listener.notice(f"ignoring {told}, because this run uses only this machine, without a cluster")
    return config.model_copy(update={name: {} for name in given})


def _embedded_ray(config: ClusterConfig, listener: RunListener) -> EmbeddedRay:
    """Return an embedded Ray with the CPUs that the run needs, even if the machine has fewer."""
    there = machine_cpus()
    if config.address is None and config.least_cpus > there:
        listener.notice(
            f"{counted(config.min_ranks, 'rank')} and "
            f"{counted(config.data_workers, 'data worker')} reserve "
            f"{counted(config.least_cpus, 'CPU')}, but this machine has only {there}. Fewer ranks "
            "would train faster"
        )
    return EmbeddedRay(cpus=config.least_cpus, niceness=config.niceness)
