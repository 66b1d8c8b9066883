"""Where rank 0 puts the run's lines: metrics.jsonl, W&B, and the supervisor's display."""

from typing import Any

from trainer.checkpoints.format import Checkpoint
from trainer.metrics import Line, MetricsRecord
from trainer.recipe import TrainingRecipe
from trainer.run_folder import RunFolder
from trainer.supervision import Supervision
from trainer.wandb_tracker import WandbTracker


class Recorder:
    """Writes a line everywhere it belongs, once."""

    def __init__(
        self,
        recipe: TrainingRecipe,
        run: RunFolder,
        checkpoint: Checkpoint | None,
        supervision: Supervision,
    ) -> None:
        self._record = MetricsRecord(run.metrics, checkpoint.step if checkpoint else 0)
        self._supervision = supervision
        self._wandb = WandbTracker(recipe, run)

    def append(self, line: Line) -> None:
        """Record a line; a repeated step is shown but not written twice."""
        for written in self._record.append(line):
            self._wandb.log(written)
        self._supervision.line(line)

    def event(self, event: str, **details: Any) -> None:
        """Record that something happened."""
        line = self._record.event(event, **details)
        self._wandb.log(line)
        self._supervision.line(line)

    def sync(self) -> None:
        """Write the record through to the disk: a checkpoint must not be ahead of it."""
        self._record.sync()

    def close(self) -> None:
        self._record.close()
        self._wandb.finish()
