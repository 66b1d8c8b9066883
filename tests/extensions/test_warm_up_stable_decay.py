"""The example schedule warm_up_stable_decay: its rates, and errors for invalid options."""

import pytest
from warm_up_stable_decay import WarmUpStableDecay

from trainer.config import ScheduleConfig
from trainer.training.schedule import learning_rate

OPTIONS = {
    "peak_learning_rate": 0.01,
    "warmup_steps": 10,
    "stable_until_step": 50,
    "half_life_steps": 5,
}


def schedule(**options):
    return ScheduleConfig(type="warm_up_stable_decay", options={**OPTIONS, **options})


def test_the_rate_rises_stays_constant_and_decays():
    rates = {step: learning_rate(schedule(), step, 512) for step in (1, 5, 10, 30, 50, 55, 60)}
    assert rates == pytest.approx(
        {1: 0.001, 5: 0.005, 10: 0.01, 30: 0.01, 50: 0.01, 55: 0.005, 60: 0.0025}
    )


def test_without_warm_up_the_rate_starts_at_the_peak():
    assert learning_rate(schedule(warmup_steps=0), 1, 512) == 0.01


def test_a_stable_part_that_ends_before_warm_up_is_refused():
    with pytest.raises(ValueError, match="stable_until_step 5 with warmup_steps 10: set it to"):
        schedule(stable_until_step=5)


def test_the_configuration_contains_the_defaults_of_options():
    """If a later version has another default, the recipe's identity changes."""
    given = {"peak_learning_rate": 0.01, "stable_until_step": 5000}
    config = ScheduleConfig(type="warm_up_stable_decay", options=given)
    assert config.options == {**given, "warmup_steps": 4000, "half_life_steps": 5000.0}
    assert config.options == WarmUpStableDecay(**given).model_dump()
