"""Recorder of rank 0, which sends lines to metrics.jsonl, W&B and the supervisor's display."""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from run_store.errors import RunError
from run_store.folder import RunFolder
from run_store.record.metrics_file import REPLAY_TOLERANCE, MetricsFile, read_backwards
from run_store.record.metrics_lines import Line, RankHung, TrainLine
from trainer.recipe import TrainingRecipe
from trainer.tasks.task import save_texts
from trainer.tracking.goodput import goodput_at_start

if TYPE_CHECKING:
    from trainer.tracking.wandb_tracker import WandbTracker


class RecorderListener(Protocol):
    """Methods of the supervisor that the recorder calls."""

    def line(self, line: Line) -> None: ...

    def notice(self, text: str) -> None: ...


class Recorder:
    """Recorder that sends each line once to all its destinations.

    Raises:
        RunError: another process trains this run, or W&B does not start.
    """

    def __init__(
        self,
        run: RunFolder,
        recipe: TrainingRecipe,
        *,
        resume_step: int,
        session_started: float,
        supervision: RecorderListener,
        wandb_facts: Callable[[], dict[str, Any]],
    ) -> None:
        """Open the metrics file and start W&B.

        Args:
            resume_step: the step of the checkpoint to resume from; 0 without one.
            session_started: when the run's owner started, in seconds since the epoch.
            supervision: receives lines and notices.
            wandb_facts: returns additions to W&B's config, see `trainer.tracking.wandb_config`.
        """
        exact = recipe.engine.numerics == "exact"
        self._record = MetricsFile(
            run.metrics,
            resume_step,
            supervision.notice,
            tolerance=0.0 if exact else REPLAY_TOLERANCE,
            curves=run.curves,
        )
        self.goodput = goodput_at_start(read_backwards(run.metrics), resume_step, session_started)
        self._clock_offset = time.time() - time.monotonic()
        self._translations = run.translations
        self._supervision = supervision
        try:
            self._tracker = _tracker(run, recipe, supervision.notice, wandb_facts)
        except RunError:
            self._record.close()
            raise

    @property
    def last_step(self) -> int:
        """Last recorded step, which is also the step number of a new event."""
        return self._record.last_step

    def append(self, line: Line) -> None:
        """Send a line to all destinations; the line of a repeated step is not written again.

        If the line is a train line of a new step, it also gets the run's totals, see
        `trainer.tracking.goodput`.
        """
        if isinstance(line, TrainLine) and not self._record.has(line):
            jump = time.time() - time.monotonic() - self._clock_offset  # clock's jump since start
            self.goodput = self.goodput.after_step(line.time - jump, line.step_seconds)
            line = line.model_copy(update=self.goodput.fields)
        mismatch = self._record.append(line)
        if self._tracker:
            self._tracker.update()
        if not isinstance(line, RankHung):  # the supervisor has reported it already
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
            RunError: the last lines could not be written and are lost.
        """
        try:
            self._record.close()
        finally:
            if self._tracker:
                self._tracker.finish()


def _tracker(
    run: RunFolder,
    recipe: TrainingRecipe,
    notice: Callable[[str], None],
    facts: Callable[[], dict[str, Any]],
) -> "WandbTracker | None":
    """Return the W&B tracker, or None if `WANDB_MODE` or the recipe disables W&B.

    `WANDB_MODE` takes precedence.
    """
    mode = os.environ.get("WANDB_MODE", recipe.tracking.wandb)
    if mode == "disabled":
        return None
    from trainer.tracking.wandb_tracker import WandbTracker  # imports wandb

    return WandbTracker(recipe, run, mode, notice, facts())
