"""Early stopping (Prechelt 1998): end the run when validation no longer improves.

The state is part of the checkpoint, so restarts do not change the step at which a run stops.
"""

from run_store.checkpoints.format import EarlyStoppingState
from run_store.scores import Scores
from trainer.config import EarlyStoppingConfig


def after_validation(
    state: EarlyStoppingState, config: EarlyStoppingConfig, step: int, scores: Scores
) -> EarlyStoppingState:
    """Return the state after a validation at `step`."""
    score = scores[config.metric]
    # The recipe's metric has changed since the last validation.
    if state.metric not in (None, config.metric):
        state = EarlyStoppingState(metric=config.metric)
    if score.is_better_than(state.best):
        return EarlyStoppingState(metric=config.metric, best=score.value, best_step=step)
    return state.model_copy(update={"validations_since_best": state.validations_since_best + 1})


def is_over(state: EarlyStoppingState, config: EarlyStoppingConfig | None) -> bool:
    """Return whether `patience` validations in a row have brought no new best score."""
    return config is not None and state.validations_since_best >= config.patience
