"""Early stopping (Prechelt 1998): end the run when validation gets better no more.

What it remembers lies in the checkpoint, so a run stops at the same step however often it was
restarted.
"""

from typing import TYPE_CHECKING

from trainer.checkpoints.format import EarlyStoppingState
from trainer.config import EarlyStoppingConfig

if TYPE_CHECKING:  # the driver asks whether a run is over; it needs no torch for that
    from trainer.validation import ValidationResult


def after_validation(
    state: EarlyStoppingState, config: EarlyStoppingConfig, step: int, result: "ValidationResult"
) -> EarlyStoppingState:
    """What is remembered after a validation."""
    value = result.loss if config.metric == "loss" else result.bleu
    if state.metric not in (None, config.metric):  # it was changed between two starts
        state = EarlyStoppingState(metric=config.metric)
    if value is not None and (
        state.best is None
        or (value < state.best if config.metric == "loss" else value > state.best)
    ):
        return EarlyStoppingState(metric=config.metric, best=value, best_step=step)
    return state.model_copy(update={"validations_since_best": state.validations_since_best + 1})


def is_over(state: EarlyStoppingState, config: EarlyStoppingConfig | None) -> bool:
    """Whether the run has been without a new best for long enough."""
    return config is not None and state.validations_since_best >= config.patience
