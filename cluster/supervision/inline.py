"""Train one rank in this process, without Ray, for a debugger.

Data and losses are the same as in a run with one rank under Ray.
"""

import socket
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING

from cluster.health.hang_detector import Position
from cluster.recipe import Recipe
from cluster.supervision.node_samples import LocalNodeSampler
from cluster.supervision.owned_run import OwnedRun, own_run
from cluster.supervision.rank_jobs import RankJobs, RankStart
from cluster.supervision.run_checks import is_run_complete, newest_checkpoint
from cluster.supervision.run_listener import RunListener
from cluster.supervision.status_writer import StatusWriter
from cluster.supervision.stop_requests import StopRequests
from data_pipeline.batching.stream import local_rank_steps
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from run_store.checkpoints.committer import CheckpointCommitter
from run_store.checkpoints.format import CheckpointHeader
from run_store.checkpoints.memory_file import MemoryFile, MemorySteps
from run_store.checkpoints.state_file import FileRecord
from run_store.folder import RunFolder, StepRange
from run_store.record.log import DETAIL, INTERRUPTED
from run_store.record.metrics_lines import Line
from run_store.record.vitals import Phase
from trainer.job.rank_job import Outcome, RankJob, ReplayOptions
from trainer.process.distributed import process_group
from trainer.process.host_memory import retain_freed_memory
from trainer.process.placement import Placement

if TYPE_CHECKING:
    from trainer.training.loop import Trainer


class InlineSupervision:
    """Implementation of `trainer.job.rank_job.Supervision` by direct calls, in one process."""

    def __init__(
        self,
        committer: CheckpointCommitter,
        listener: RunListener,
        status: StatusWriter,
        stop: StopRequests,
    ) -> None:
        self._committer = committer
        self._listener = listener
        self._status = status
        self._stop = stop
        # A run in an object store uploads its state from another thread.
        self._committing = Lock()

    def progress(self, phase: Phase, step: int, where: str = "") -> None:
        with self._committing:
            self._committer.take_published()
        self._status.rank_moved(0, Position(phase, step, where))
        if phase == "save":
            self._status.checkpoint_begins(step)

    def line(self, line: Line) -> None:
        self._listener.line(line)

    def notice(self, text: str) -> None:
        self._listener.notice(text)

    def log_detail(self, text: str) -> None:
        self._listener.log_detail(f"{DETAIL}{text}")

    def state_written(self, file: FileRecord, header: CheckpointHeader) -> None:
        with self._committing:
            self._committer.add(file, header)
        self._status.checkpoint_ends(header.step)

    def state_failed(self, step: int, reason: str) -> None:
        with self._committing:
            self._committer.give_up(step)
        self._status.checkpoint_ends(step)
        self._listener.notice(reason)

    def memory_written(self, file: MemoryFile, header: CheckpointHeader) -> None:
        raise AssertionError("a run in one process has no memory tier")

    def memory_failed(self, step: int) -> None:
        raise AssertionError("a run in one process has no memory tier")

    def memory_steps(self) -> MemorySteps:
        return MemorySteps()

    def stop_requested(self) -> bool:
        return self._stop.reason is not None


def train_inline(
    recipe: Recipe,
    run: RunFolder,
    store: DatasetStore,
    manifest: Manifest,
    listener: RunListener,
    profile: StepRange | None,
    replay: ReplayOptions | None = None,
) -> Outcome:
    """Train a run with one rank in this process.

    Args:
        replay: options to train in a scratch folder, only to compare and inspect steps; None for a
            normal run.
    """
    reader = WindowReader(store, manifest, recipe.data_settings)
    try:
        with own_run(recipe, run, store, manifest, listener) as owned:
            if is_run_complete(recipe, run, owned.lease.work, manifest, listener):
                return "finished"
            return _train(owned, reader, profile, replay)
    except KeyboardInterrupt:
        listener.notice(INTERRUPTED)
        return "stopped"


def _train(
    owned: OwnedRun,
    reader: WindowReader,
    profile: StepRange | None,
    replay: ReplayOptions | None,
) -> Outcome:
    recipe, run, listener, status = owned.recipe, owned.folder, owned.listener, owned.status
    placement = Placement(
        device="cuda" if recipe.cluster.gpus_per_rank else "cpu",
        threads=recipe.cluster.threads_per_rank,
    )
    with process_group(placement, timedelta(minutes=1)):
        status.state_begins("starting_ranks")
        status.attempt_begins([node := socket.gethostname()])
        checkpoint = newest_checkpoint(run, owned.lease.work, owned.manifest, listener)
        committer = CheckpointCommitter(
            owned.lease,
            run.checkpoints,
            recipe.checkpoints,
            world_size=1,
            announce=listener.notice,
            publisher=owned.mirror,
        )
        jobs = RankJobs(recipe, owned.manifest, run, profile, replay)
        job = jobs.job(RankStart(checkpoint), committer)
        supervision = InlineSupervision(committer, listener, status, owned.stop)
        trainer = _build(job, placement, reader, supervision)
        status.state_begins("training")
        with trainer, LocalNodeSampler(run, node, recipe.cluster.node_usage_seconds):
            outcome = trainer.train()
        status.state_begins("ending")
        committer.finish()
        owned.stop.ignore_requests()
        return outcome


def _build(
    job: RankJob, placement: Placement, reader: WindowReader, supervision: InlineSupervision
) -> "Trainer":
    """Build the rank, whose process group must already exist."""
    # Imported here because it imports DeepSpeed, which reads the environment.
    from trainer.assembly.run import build_rank

    retain_freed_memory()  # as in a rank's process
    slots = job.recipe.batching.micro_batches_per_step
    return build_rank(
        job,
        placement=placement,
        steps=lambda cursor: local_rank_steps(reader, cursor, 0, 1, slots),
        supervision=supervision,
    )
