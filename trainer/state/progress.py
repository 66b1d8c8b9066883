"""Progress of a run: everything that a checkpoint stores except the tensors of the state."""

from dataclasses import dataclass, field
from typing import Any

from data_pipeline.batching.plan import Cursor
from run_store.checkpoints.format import CheckpointHeader, EarlyStoppingState, Parent
from run_store.scores import Scores
from trainer.config import TrainerConfig
from trainer.state import early_stopping
from trainer.state.digest import START


@dataclass
class Progress:
    """Counters and positions of a run; equal on all ranks."""

    step: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    data_digest: str = START
    target_tokens_seen: int = 0
    scores: Scores = field(default_factory=dict)  # scores of this step's validation, if any
    validation_due: bool = False  # a stop request postponed this step's validation
    early_stopping: EarlyStoppingState = field(default_factory=EarlyStoppingState)
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    skipped_spikes: int = 0
    # The guards' states at the last checkpoint, by the recipe keys that create the guards.
    guard_states: dict[str, dict[str, Any]] = field(default_factory=dict)
    parent: Parent | None = None

    @classmethod
    def of_checkpoint(cls, header: CheckpointHeader, cursor: Cursor) -> "Progress":
        """Return the progress of the run at a checkpoint.

        Args:
            header: the header of the checkpoint.
            cursor: the position at which the run's data continues.
        """
        return cls(
            step=header.step,
            cursor=cursor,
            data_digest=header.data_digest,
            target_tokens_seen=header.target_tokens_seen,
            validation_due=header.validation_due,
            early_stopping=header.early_stopping,
            skipped_steps=header.skipped_steps,
            skipped_in_a_row=header.skipped_in_a_row,
            skipped_spikes=header.skipped_spikes,
            guard_states=header.guard_states,
            parent=header.parent,
        )

    def is_over(self, config: TrainerConfig) -> bool:
        """Return whether no step is left to train; a validation may still be due."""
        return self.step >= config.max_steps or early_stopping.is_over(
            self.early_stopping, config.early_stopping
        )
