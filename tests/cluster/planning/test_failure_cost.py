"""Cost of failures, compared with published figures; the best interval is compared with others."""

import math

import pytest

from cluster.planning.failure_cost import DAY, best_interval, effective_share, failure_cost
from run_store.config import CheckpointsConfig
from trainer.memory.state_size import StateSize


def size(copy):
    return StateSize(0, 0, 0, 0, 0, 0, checkpoint_copy=copy)


@pytest.mark.parametrize(("rate", "lost"), [(6.5, 0.009), (23.7, 0.034)])
def test_lost_time_equals_the_published_figures(rate, lost):
    """The published case: checkpoints every 30 minutes, restarts of 60 s, 128 nodes (arXiv
    2410.21680).
    """
    share = effective_share(128 * rate / 1000, 1800, stall=0.0)
    assert 1 - share == pytest.approx(lost, rel=0.06)


@pytest.mark.parametrize("losses", [0.01, 1.0, 40.0, 2000.0])
@pytest.mark.parametrize("stall", [0.05, 1.0, 30.0])
def test_no_interval_is_noticeably_better_than_the_best_interval(losses, stall):
    best = effective_share(losses, best_interval(losses, stall), stall)
    others = (stall * 1.01**n for n in range(1, 2000))
    assert best >= max(effective_share(losses, other, stall) for other in others) - 0.01


def test_a_checkpoint_that_takes_longer_than_the_time_between_failures_has_no_effective_share():
    assert best_interval(DAY, stall=3.0) == 1.0
    assert effective_share(DAY, 1.0, 3.0) == 0


def test_the_cost_of_a_recipe_follows_from_its_interval_and_step_time():
    cost = failure_cost(
        1000, 6.5, size(3 * 10**9), CheckpointsConfig(every_steps=100), step_seconds=2.0
    )
    assert (cost.losses_per_day, cost.stall_seconds) == (6.5, 1.0)
    assert cost.disk.interval_seconds == 200
    assert cost.disk.effective == effective_share(6.5, 200, 1.0)
    assert cost.disk.best_interval_seconds == pytest.approx(math.sqrt(2 * DAY / 6.5), rel=0.02)
    assert cost.disk.best_effective >= cost.disk.effective
    assert cost.memory.interval_seconds is cost.memory.effective is None


def test_the_best_interval_of_memory_copies_is_at_least_the_time_of_a_copy():
    cost = failure_cost(10**5, 100, size(3 * 10**9), CheckpointsConfig(), step_seconds=None)
    assert cost.memory.best_interval_seconds == pytest.approx(23.0)
    assert cost.disk.best_interval_seconds < cost.memory.best_interval_seconds
    assert cost.disk.interval_seconds is None
