"""Learning rates compared with their formulas and with torch's schedulers."""

import math
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch.optim import lr_scheduler

from trainer.config import ScheduleConfig, TrainerConfig
from trainer.training.schedule import learning_rate

WARM_UP, PEAK, INITIAL, END, FINAL = 40, 0.005, 1e-7, 200, 1e-4
TYPES = ["inverse_square_root", "cosine", "linear", "constant"]


def schedule_of(kind, **settings):
    common = {"warmup_steps": WARM_UP, "peak_learning_rate": PEAK, "initial_learning_rate": INITIAL}
    decay = {"decay_until_step": END, "final_learning_rate": FINAL}
    return ScheduleConfig(
        **{"type": kind, **common, **(decay if kind in ("cosine", "linear") else {}), **settings}
    )


def torchs_rates(scheduler, peak, steps):
    """Return the values of a torch scheduler after 0…steps-1 of its steps."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=peak)
    scheduler = scheduler(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_the_schedule_of_the_paper_peaks_at_the_end_of_warm_up():
    """Vaswani et al. 2017, §5.3: the base model's rate peaks after 4,000 steps at 7e-4."""
    schedule = ScheduleConfig(type="paper", warmup_steps=4000)
    rates = {step: learning_rate(schedule, step, 512) for step in (1, 2000, 4000, 16000)}
    assert rates[4000] == pytest.approx(512**-0.5 * 4000**-0.5)
    assert rates[4000] == pytest.approx(7e-4, rel=2e-3)
    assert rates[2000] == pytest.approx(rates[4000] / 2)
    assert rates[16000] == pytest.approx(rates[4000] / 2)
    assert rates[1] == pytest.approx(rates[4000] / 4000)
    twice = ScheduleConfig(type="paper", warmup_steps=4000, scale=2.0)
    assert learning_rate(twice, 2000, 512) == pytest.approx(rates[4000])


@pytest.mark.parametrize("kind", TYPES)
def test_rates_during_warm_up_equal_those_of_torch(kind):
    expected = torchs_rates(
        lambda optimizer: lr_scheduler.LinearLR(optimizer, INITIAL / PEAK, 1.0, WARM_UP),
        PEAK,
        WARM_UP + 1,
    )
    rates = [learning_rate(schedule_of(kind), step, 128) for step in range(1, WARM_UP + 1)]
    assert rates == pytest.approx(expected[1:], rel=1e-9)
    assert rates[-1] == PEAK


@pytest.mark.parametrize(
    ("kind", "torchs"),
    [
        ("constant", lambda optimizer: lr_scheduler.ConstantLR(optimizer, 1.0)),
        (
            "cosine",
            lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, END - WARM_UP, FINAL),
        ),
        (
            "linear",
            lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, FINAL / PEAK, END - WARM_UP),
        ),
        (
            "inverse_square_root",
            lambda optimizer: lr_scheduler.LambdaLR(
                optimizer, lambda over: math.sqrt(WARM_UP / (WARM_UP + over))
            ),
        ),
    ],
)
def test_rates_after_warm_up_equal_those_of_torch(kind, torchs):
    expected = torchs_rates(torchs, PEAK, END - WARM_UP + 1)
    rates = [learning_rate(schedule_of(kind), step, 128) for step in range(WARM_UP, END + 1)]
    assert rates == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "halfway", "quarter"), [("linear", 0.5, 0.75), ("cosine", 0.5, (2 + 2**0.5) / 4)]
)
def test_a_decay_ends_at_its_given_step_and_the_rate_stays_there(kind, halfway, quarter):
    schedule = schedule_of(kind)
    for step, share in [(WARM_UP, 1), (80, quarter), (120, halfway), (END, 0), (10 * END, 0)]:
        rate = learning_rate(schedule, step, 128)
        assert rate == pytest.approx(FINAL + share * (PEAK - FINAL), rel=1e-12)
    to_zero = schedule_of(kind, final_learning_rate=0.0)
    rates = [learning_rate(to_zero, step, 128) for step in range(WARM_UP, END + 1)]
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert rates[-1] == 0


@pytest.mark.parametrize("kind", TYPES)
def test_without_warm_up_the_first_step_has_about_the_peak_rate(kind):
    rate = learning_rate(schedule_of(kind, warmup_steps=0), 1, 128)
    assert 0.9 * PEAK < rate <= PEAK


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "paper", "peak_learning_rate": 0.1}, "remove peak_learning_rate, or set `scale`"),
        ({"type": "constant"}, "set peak_learning_rate, for example to 0.0005"),
        ({"type": "paper", "warmup_steps": 0}, "at least 1"),
        ({"type": "paper", "initial_learning_rate": 0}, "does not read initial_learning_rate"),
        ({"type": "constant", "peak_learning_rate": 0.1, "scale": 2}, "does not read scale"),
        (
            {"type": "constant", "peak_learning_rate": 0.1, "decay_until_step": 9000},
            "does not read decay_until_step, which is 9000: remove it",
        ),
        (
            {"type": "inverse_square_root", "peak_learning_rate": 0.1, "final_learning_rate": 0.01},
            "does not read final_learning_rate, which is 0.01: remove it",
        ),
        (
            {"type": "cosine", "peak_learning_rate": 0.1},
            "decay_until_step is None.* 4000 warmup_steps: set decay_until_step to a later step",
        ),
        (
            {"type": "linear", "peak_learning_rate": 0.1, "decay_until_step": 4000},
            "decay_until_step is 4000.* 4000 warmup_steps: set decay_until_step to a later step",
        ),
        (
            {
                "type": "linear",
                "peak_learning_rate": 0.1,
                "final_learning_rate": 0.2,
                "decay_until_step": 9000,
            },
            "is 0.2, which is above peak_learning_rate 0.1: set a lower final_learning_rate",
        ),
    ],
)
def test_contradictory_schedule_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        ScheduleConfig(**settings)


def test_max_steps_beyond_a_decay_to_zero_is_refused():
    TrainerConfig(max_steps=END, schedule=schedule_of("cosine", final_learning_rate=0.0))
    TrainerConfig(max_steps=END + 1, schedule=schedule_of("cosine"))
    with pytest.raises(ValidationError, match=r"max_steps is 201, .*is 0: set max_steps to 200 or"):
        TrainerConfig(max_steps=END + 1, schedule=schedule_of("cosine", final_learning_rate=0.0))


def test_schedules_of_older_runs_have_the_same_bits():
    """A resumed run must repeat its curve bit by bit, so its rates must be rounded as before."""
    for step in range(1, 3 * WARM_UP):
        inverse = learning_rate(schedule_of("inverse_square_root"), step, 128)
        if step < WARM_UP:
            assert inverse == INITIAL + (PEAK - INITIAL) * step / WARM_UP
        else:
            assert inverse == PEAK * (WARM_UP / step) ** 0.5
        paper = ScheduleConfig(type="paper", warmup_steps=WARM_UP, scale=1.5)
        assert learning_rate(paper, step, 128) == (
            1.5 * 128**-0.5 * min(step**-0.5, step * WARM_UP**-1.5)
        )
