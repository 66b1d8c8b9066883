"""Recorder of rank 0, which sends lines to metrics.jsonl, W&B and the supervisor's display."""

import os
from collections.abc import Callable
from typing import Any, Protocol

from data_pipeline.dataset.manifest import Manifest
from trainer.checkpoints.format import Checkpoint
from trainer.errors import TrainerError
from trainer.rank.rank_job import RankContext
from trainer.record.goodput import goodput_at_start
from trainer.record.metrics_file import REPLAY_TOLERANCE, MetricsFile, read_backwards
from trainer.record.metrics_lines import Line, TrainLine
from trainer.record.wandb_config import facts_for_wandb
from trainer.tasks.task import save_texts


class Recorder:
    """Recorder that sends each line to all its destinations, once.

    Raises:
        TrainerError: another process trains this run, or W&B does not start.
    """

    def __init__(
        self,
        context: RankContext,
        checkpoint: Checkpoint | None,
        manifest: Manifest | None = None,
    ) -> None:
        """Open the record and start W&B.

        Args:
            context: the job of the rank.
            checkpoint: the checkpoint to resume from, or None.
            manifest: the manifest of the dataset, for W&B's config.
        """
        job, run, supervision = context.job, context.run, context.supervision
        resume_step = checkpoint.step if checkpoint else 0
        exact = job.recipe.engine.numerics == "exact"
        self._record = MetricsFile(
            run.metrics,
            resume_step,
            supervision.notice,
            tolerance=0.0 if exact else REPLAY_TOLERANCE,
        )
        self.goodput = goodput_at_start(
            read_backwards(run.metrics), resume_step, job.session_started
        )
        self._translations = run.translations
        self._supervision = supervision
        try:
            self._tracker = _tracker(
                context, lambda: facts_for_wandb(context, checkpoint, manifest)
            )
        except TrainerError:
            self._record.close()
            raise

    @property
    def last_step(self) -> int:
        """Last recorded step, at which events are recorded."""
        return self._record.last_step

    def append(self, line: Line) -> None:
        """Record a line; a repeated step is shown but not written twice.

        A train line that the record does not have yet also gets the run's totals, see
        `trainer.record.goodput`.
        """
        if isinstance(line, TrainLine) and not self._record.has(line):
            self.goodput = self.goodput.after_step(line.time, line.step_seconds)
            line = line.model_copy(update=self.goodput.fields)
        mismatch = self._record.append(line)
        self._tracker.update()
        self._supervision.line(line)
        if mismatch:
            self._supervision.line(mismatch)

    def record_texts(self, step: int, texts: list[str]) -> None:
        """Save the outputs of a validation for the examples, or report why not."""
        try:
            save_texts(self._translations, f"validation-{step:08d}", texts)
        except OSError as error:
            self._supervision.notice(f"the translations of step {step} cannot be saved: {error}")

    def sync(self) -> None:
        """Sync the record to the disk: a checkpoint must not be ahead of it.

        May be called from another thread.

        Raises:
            CheckpointError: the disk is full or fails.
        """
        self._record.sync()

    def close(self) -> None:
        """Close the record and finish W&B.

        Raises:
            TrainerError: the record's end is lost.
        """
        try:
            self._record.close()
        finally:
            self._tracker.finish()


class Tracker(Protocol):
    """Interface of a view of the record."""

    def update(self) -> None:
        """Notify the view of new lines in the record."""

    def finish(self) -> None:
        """Show the record to its end, and stop."""


class NoTracker:
    """View that shows nothing."""

    def update(self) -> None:
        pass

    def finish(self) -> None:
        pass


def _tracker(context: RankContext, facts: Callable[[], dict[str, Any]]) -> Tracker:
    """Return the W&B view, unless the environment, or else the recipe, disables it."""
    recipe = context.recipe
    mode = os.environ.get("WANDB_MODE", recipe.tracking.wandb)
    if mode == "disabled":
        return NoTracker()
    from trainer.record.wandb_tracker import WandbTracker  # imports W&B

    return WandbTracker(recipe, context.run, mode, context.supervision.notice, facts())
