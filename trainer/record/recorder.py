"""Recorder of rank 0, which sends lines to metrics.jsonl, W&B and the supervisor's display."""

import os
from collections.abc import Callable
from typing import Any, Protocol

from trainer.checkpoints.format import SavedState
from trainer.errors import TrainerError
from trainer.rank.rank_job import RankContext
from trainer.record.goodput import goodput_at_start
from trainer.record.metrics_file import REPLAY_TOLERANCE, MetricsFile, read_backwards
from trainer.record.metrics_lines import Line, RankHung, TrainLine
from trainer.record.wandb_config import facts_for_wandb
from trainer.tasks.task import save_texts


class Recorder:
    """Recorder that sends each line once to all its destinations.

    Raises:
        TrainerError: another process trains this run, or W&B does not start.
    """

    def __init__(self, context: RankContext, checkpoint: SavedState | None) -> None:
        """Open the metrics file and start W&B.

        Args:
            context: the recipe, the placement and the job of this rank.
            checkpoint: the checkpoint to resume from, or None.
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
            self._tracker = _tracker(context, lambda: facts_for_wandb(context, checkpoint))
        except TrainerError:
            self._record.close()
            raise

    @property
    def last_step(self) -> int:
        """Last recorded step, which is also the step number of a new event."""
        return self._record.last_step

    def append(self, line: Line) -> None:
        """Send a line to all destinations; the line of a repeated step is not written again.

        If the line is a train line of a new step, it also gets the run's totals, see
        `trainer.record.goodput`.
        """
        if isinstance(line, TrainLine) and not self._record.has(line):
            self.goodput = self.goodput.after_step(line.time, line.step_seconds)
            line = line.model_copy(update=self.goodput.fields)
        mismatch = self._record.append(line)
        self._tracker.update()
        if not isinstance(line, RankHung):  # the supervisor reported it when the ranks hung
            self._supervision.line(line)
        if mismatch:
            self._supervision.line(mismatch)

    def record_texts(self, step: int, texts: list[str]) -> None:
        """Save the output texts of a validation; if that fails, send a notice."""
        try:
            save_texts(self._translations, f"validation-{step:08d}", texts)
        except OSError as error:
            self._supervision.notice(f"the translations of step {step} cannot be saved: {error}")

    def sync(self) -> None:
        """Sync the metrics file to the disk, so that it has all steps up to a checkpoint.

        Another thread may call this method.

        Raises:
            CheckpointError: the disk is full or fails.
        """
        self._record.sync()

    def close(self) -> None:
        """Close the metrics file and finish W&B.

        Raises:
            TrainerError: the last lines could not be written and are lost.
        """
        try:
            self._record.close()
        finally:
            self._tracker.finish()


class Tracker(Protocol):
    """Interface of a tracker, which shows the metrics file in another system."""

    def update(self) -> None:
        """Notify the tracker of new lines in the metrics file."""

    def finish(self) -> None:
        """Show the rest of the metrics file, and stop."""


class NoTracker:
    """Tracker that does nothing."""

    def update(self) -> None:
        pass

    def finish(self) -> None:
        pass


def _tracker(context: RankContext, facts: Callable[[], dict[str, Any]]) -> Tracker:
    """Return the W&B tracker, or `NoTracker` if `WANDB_MODE` or the recipe disables W&B.

    `WANDB_MODE` takes precedence.
    """
    recipe = context.recipe
    mode = os.environ.get("WANDB_MODE", recipe.tracking.wandb)
    if mode == "disabled":
        return NoTracker()
    from trainer.record.wandb_tracker import WandbTracker  # imports wandb

    return WandbTracker(recipe, context.run, mode, context.supervision.notice, facts())
