"""Early stopping: end training when validations have had no new best for long enough."""

from math import nan

import pytest

from run_store.checkpoints.format import EarlyStoppingState
from trainer.config import EarlyStoppingConfig
from trainer.state.early_stopping import after_validation, is_over
from trainer.tasks.translation import translation_scores


def stops_after(metric, patience, losses=(), bleus=()):
    """Return the number of validations after which the run stops, or None."""
    config = EarlyStoppingConfig(metric=metric, patience=patience)
    state = EarlyStoppingState()
    values = [(loss, 0.0) for loss in losses] or [(0.0, bleu) for bleu in bleus]
    for count, (loss, bleu) in enumerate(values, start=1):
        state = after_validation(state, config, 10 * count, translation_scores(loss, bleu))
        if is_over(state, config):
            return count
    return None


@pytest.mark.parametrize(
    ("patience", "losses", "expected"),
    [
        (1, [3.0, 2.0, 1.0], None),
        (1, [3.0, 2.0, 2.5], 3),
        (2, [3.0, 2.0, 2.5, 1.9, 2.0], None),
        (2, [3.0, 2.0, 2.5, 2.4], 4),
        (2, [3.0, 3.0, 3.0], 3),  # a score equal to the best is no new best
    ],
)
def test_a_run_stops_after_enough_validations_without_a_lower_loss(patience, losses, expected):
    assert stops_after("loss", patience, losses=losses) == expected


def test_a_run_stops_after_enough_validations_without_a_higher_bleu():
    assert stops_after("bleu", 2, bleus=[0.0, 5.0, 4.0, 6.0, 5.9, 6.0]) == 6


def test_a_run_without_early_stopping_is_never_over():
    assert not is_over(EarlyStoppingState(validations_since_best=10**6), None)


def test_the_best_score_is_remembered_with_its_step():
    config = EarlyStoppingConfig(metric="loss", patience=3)
    state = EarlyStoppingState()
    for step, loss in [(10, 2.0), (20, 1.0), (30, 1.5)]:
        state = after_validation(state, config, step, translation_scores(loss, 0.0))
    assert state == EarlyStoppingState(
        metric="loss", best=1.0, best_step=20, validations_since_best=1
    )


def test_a_loss_that_is_not_finite_is_never_the_best():
    assert stops_after("loss", 2, losses=[nan, 3.0, nan, 2.0, 2.5, nan]) == 6


def test_a_change_of_the_metric_restarts_the_count():
    best = EarlyStoppingState(metric="bleu", best=0.5, best_step=10, validations_since_best=2)
    config = EarlyStoppingConfig(metric="loss", patience=3)
    assert after_validation(best, config, 20, translation_scores(2.0, 0.4)) == EarlyStoppingState(
        metric="loss", best=2.0, best_step=20
    )
