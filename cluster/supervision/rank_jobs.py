"""Jobs of ranks: for each start of ranks under Ray, and for the rank of a run in one process."""

import time
from dataclasses import dataclass, field

from cluster.ranks.node_memory import MemoryCheckpoint
from cluster.recipe import Recipe
from cluster.supervision.run_checks import start_cursor
from data_pipeline.dataset.manifest import Manifest
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.committer import CheckpointCommitter
from run_store.folder import RunFolder, StepRange
from run_store.record.hang import HangFinding
from trainer.job.rank_job import RankJob, ReplayOptions
from trainer.start.warm_start import warm_start_of


@dataclass(frozen=True)
class RankStart:
    """State of the run from which ranks start.

    Attributes:
        checkpoint: the newest intact checkpoint on disk; None to start at step 0.
        memory: a newer state in the memory of the nodes, which is used instead, or None.
        is_verified: whether the supervisor has hashed the files of `checkpoint`, so that the ranks
            need not.
    """

    checkpoint: Checkpoint | None
    memory: MemoryCheckpoint | None = None
    is_verified: bool = True

    @property
    def step(self) -> int:
        saved = self.memory or self.checkpoint
        return saved.step if saved else 0

    @property
    def source(self) -> str:
        """The source of the state as the end of a sentence; empty at step 0."""
        if self.memory:
            return f" from {self.memory.label}"
        return f" from the checkpoint of step {self.step}" if self.checkpoint else ""


@dataclass(frozen=True)
class RankJobs:
    """Factory of the jobs of a session's ranks.

    Attributes:
        run: the run's folder, by a path that the ranks can use.
        profile: the steps to profile, or None.
        replay: options of a replay, or None for a run.
        session_started: when the session started, in seconds since the epoch.
    """

    recipe: Recipe
    manifest: Manifest
    run: RunFolder
    profile: StepRange | None = None
    replay: ReplayOptions | None = None
    session_started: float = field(default_factory=time.time)

    def job(
        self,
        start: RankStart,
        committer: CheckpointCommitter,
        memory_name: str | None = None,
        hang: HangFinding | None = None,
        resize_reason: str | None = None,
    ) -> RankJob:
        """Return the job of all ranks of an attempt.

        Args:
            committer: the committer of their checkpoints.
            memory_name, hang, resize_reason: see `RankJob`.
        """
        run, checkpoint = self.run, start.checkpoint
        return RankJob(
            recipe=self.recipe.training(),
            run=run.path,
            manifest=self.manifest.header(),
            checkpoint=run.checkpoints / checkpoint.path.name if checkpoint else None,
            cursor=start_cursor(self.recipe, self.manifest, start.memory or checkpoint),
            work=run.checkpoints / committer.work.name,
            attempt=committer.attempt,
            url=run.url,
            states_url=committer.states_url,
            session_started=self.session_started,
            verify_checkpoint=not start.is_verified or start.memory is not None,
            memory_checkpoint=start.memory,
            memory_name=memory_name,
            warm_start=warm_start_of(self.recipe, run, self.manifest, run.card().parent),
            profile=self.profile,
            replay=self.replay,
            hang=hang,
            resize_reason=resize_reason,
        )
