"""The supervisor of a run: the driver process.

It owns the run for as long as it lives, starts data workers and ranks, commits the checkpoints that
the ranks write, and starts the ranks again when one of them is lost. Everything that it needs for
that is put together here, a line each.
"""

from cluster.attempt import Means
from cluster.attempts import Attempts
from cluster.audience import Audience
from cluster.belonging import open_run
from cluster.cluster_view import ClusterView
from cluster.data_workers import DataWorkers
from cluster.rank_supply import RankSupply
from cluster.recipe import Recipe
from cluster.session import ray_session, require_total
from cluster.stop_requests import StopRequests
from cluster.waking_clock import WakingClock
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.store import DatasetStore
from trainer.checkpoints.lease import Lease
from trainer.profile import StepRange
from trainer.run_folder import RunFolder
from trainer.supervision import Outcome


def supervise(
    recipe: Recipe,
    run: RunFolder,
    store: DatasetStore,
    manifest: Manifest,
    audience: Audience,
    profile: StepRange | None,
) -> Outcome:
    """Train a run under Ray until it is finished or has to leave.

    Raises:
        RunInUseError: another process trains it.
        ClusterError, DataError, ModelError, TrainerError: it cannot be trained, or not any further.
    """
    config = recipe.cluster
    clock = WakingClock()
    try:
        with StopRequests(run) as stop, Lease(run.path, audience.notice) as lease:
            stop.forget_file()
            open_run(recipe, run, store, manifest)
            with (
                ray_session(config.address),
                ClusterView(config.wait_for_head_seconds, audience.notice) as view,
                RankSupply(config, clock) as supply,
            ):
                require_total(
                    cpus=config.min_ranks * config.cpus_per_rank
                    + config.data_workers * config.cpus_per_data_worker,
                    gpus=config.min_ranks * config.gpus_per_rank,
                )
                workers = DataWorkers(
                    recipe.data_settings,
                    manifest.identity,
                    cpus=config.cpus_per_data_worker,
                    cache_bytes=config.data_memory_bytes,
                )
                workers.start(config.data_workers)
                means = Means(config, run, lease, view, supply, workers, stop, audience, clock)
                try:
                    return Attempts(recipe, manifest, means, profile).run()
                finally:
                    stop.let_outcome_stand()
    except KeyboardInterrupt:
        audience.notice("asked to stop a second time: ended at once")
        return "preempted"
