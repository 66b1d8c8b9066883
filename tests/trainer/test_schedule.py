"""Learning rates against their formulas."""

import pytest

from trainer.config import ScheduleConfig
from trainer.schedule import learning_rate


def test_the_papers_schedule():
    """Vaswani et al. 2017, §5.3, for the base model: it peaks after 4,000 steps at 7e-4."""
    schedule = ScheduleConfig(type="paper", warmup_steps=4000)
    rates = {step: learning_rate(schedule, step, 512) for step in (1, 2000, 4000, 16000)}
    assert rates[4000] == pytest.approx(512**-0.5 * 4000**-0.5)
    assert rates[2000] == pytest.approx(rates[4000] / 2)
    assert rates[16000] == pytest.approx(rates[4000] / 2)
    assert rates[1] == pytest.approx(rates[4000] / 4000)


def test_inverse_square_root_is_continuous_at_the_end_of_warm_up():
    schedule = ScheduleConfig(
        type="inverse_square_root",
        warmup_steps=2000,
        peak_learning_rate=0.005,
        initial_learning_rate=1e-7,
    )
    assert learning_rate(schedule, 1, 128) == pytest.approx(1e-7 + (0.005 - 1e-7) / 2000)
    assert learning_rate(schedule, 1999, 128) == pytest.approx(0.005, rel=1e-3)
    assert learning_rate(schedule, 2000, 128) == 0.005
    assert learning_rate(schedule, 8000, 128) == pytest.approx(0.0025)


def test_constant():
    schedule = ScheduleConfig(type="constant", warmup_steps=0, peak_learning_rate=0.001)
    assert {learning_rate(schedule, step, 8) for step in (1, 10, 10**6)} == {0.001}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "paper", "peak_learning_rate": 0.1}, "remove it, or set `scale`"),
        ({"type": "constant"}, "set it, e.g. to 0.0005"),
        ({"type": "paper", "warmup_steps": 0}, "at least 1"),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**settings)
