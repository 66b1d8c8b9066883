"""Where rank 0 puts the run's lines: metrics.jsonl, W&B, and the supervisor's display."""

from typing import Any

from trainer.checkpoints.format import Checkpoint
from trainer.errors import TrainerError
from trainer.rank_job import RankJob
from trainer.runs.folder import RunFolder
from trainer.supervision import Supervision
from trainer.tracking.goodput import goodput_at_start
from trainer.tracking.metrics import REPLAY_TOLERANCE, Line, MetricsRecord, read_backwards
from trainer.tracking.wandb_tracker import WandbTracker


class Recorder:
    """Writes a line everywhere it belongs, once.

    Raises:
        TrainerError: another process trains this run, or W&B does not start.
    """

    def __init__(
        self, job: RankJob, checkpoint: Checkpoint | None, supervision: Supervision
    ) -> None:
        run = RunFolder(job.run)
        resume_step = checkpoint.step if checkpoint else 0
        exact = job.recipe.engine.numerics == "exact"
        self._record = MetricsRecord(
            run.metrics,
            resume_step,
            supervision.notice,
            tolerance=0.0 if exact else REPLAY_TOLERANCE,
        )
        self._goodput = goodput_at_start(
            read_backwards(run.metrics), resume_step, job.session_started
        )
        self._supervision = supervision
        try:
            self._wandb = WandbTracker(job.recipe, run, supervision.notice)
        except TrainerError:
            self._record.close()
            raise

    @property
    def is_restart(self) -> bool:
        """Whether an earlier start of the ranks has recorded something."""
        return self._goodput.restarts > 0

    def append(self, line: Line) -> None:
        """Record a line; a repeated step is shown but not written twice.

        A train line that the record has not got yet is given the run's totals, see
        `trainer.tracking.goodput`.
        """
        if line["kind"] == "train" and not self._record.has(line):
            self._goodput = self._goodput.after_step(line["time"], line["step_seconds"])
            line = line | self._goodput.fields
        mismatch = self._record.append(line)
        self._wandb.update()
        self._supervision.line(line)
        if mismatch:
            self._supervision.line(mismatch)

    def event(self, event: str, **details: Any) -> None:
        """Record that something happened; of a restart, also how many and how costly they were."""
        if event == "resumed":
            details |= self._goodput.counts
        line = self._record.event(event, **details)
        self._wandb.update()
        self._supervision.line(line)

    def sync(self) -> None:
        """Write the record through to the disk: a checkpoint must not be ahead of it.

        May be called from another thread.

        Raises:
            CheckpointError: the disk is full or fails.
        """
        self._record.sync()

    def close(self) -> None:
        """Raises TrainerError if the record's end is lost."""
        try:
            self._record.close()
        finally:
            self._wandb.finish()
