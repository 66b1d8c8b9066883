"""Early stopping (Prechelt 1998): end the run when validation no longer gets better.

Its state lies in the checkpoint, so a run stops at the same step however often it was restarted.
"""

from trainer.checkpoints.format import EarlyStoppingState
from trainer.config import EarlyStoppingConfig
from trainer.scores import Scores


def after_validation(
    state: EarlyStoppingState, config: EarlyStoppingConfig, step: int, scores: Scores
) -> EarlyStoppingState:
    """The state after a validation."""
    score = scores[config.metric]
    if state.metric not in (None, config.metric):  # the metric was changed between two starts
        state = EarlyStoppingState(metric=config.metric)
    if score.is_better_than(state.best):
        return EarlyStoppingState(metric=config.metric, best=score.value, best_step=step)
    return state.model_copy(update={"validations_since_best": state.validations_since_best + 1})


def is_over(state: EarlyStoppingState, config: EarlyStoppingConfig | None) -> bool:
    """Whether the run has been without a new best for long enough."""
    return config is not None and state.validations_since_best >= config.patience
