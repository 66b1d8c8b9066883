"""Cost of failures: the published formula, and the best interval by trying all of them."""

import math

import pytest

from cluster.planning.failure_cost import DAY, best_interval, effective_share, failure_cost
from run_store.config import CheckpointsConfig
from trainer.memory.state_size import StateSize


def size(copy):
    return StateSize(0, 0, 0, 0, 0, 0, checkpoint_copy=copy)


@pytest.mark.parametrize(("rate", "lost"), [(6.5, 0.009), (23.7, 0.034)])
def test_published_losses(rate, lost):
    """Checkpoints every 30 minutes, restarts of 60 s and 128 nodes (arXiv 2410.21680)."""
    share = effective_share(128 * rate / 1000, 1800, stall=0.0)
    assert 1 - share == pytest.approx(lost, rel=0.06)


@pytest.mark.parametrize("losses", [0.01, 1.0, 40.0, 2000.0])
@pytest.mark.parametrize("stall", [0.05, 1.0, 30.0])
def test_no_other_interval_is_noticeably_better(losses, stall):
    best = effective_share(losses, best_interval(losses, stall), stall)
    others = (stall * 1.01**n for n in range(1, 2000))
    assert best >= max(effective_share(losses, other, stall) for other in others) - 0.01


def test_a_checkpoint_that_takes_longer_than_nodes_live_is_taken_between_failures():
    assert best_interval(DAY, stall=3.0) == 1.0
    assert effective_share(DAY, 1.0, 3.0) == 0


def test_cost_of_a_recipe():
    cost = failure_cost(
        1000, 6.5, size(3 * 10**9), CheckpointsConfig(every_steps=100), step_seconds=2.0
    )
    assert (cost.losses_per_day, cost.stall_seconds) == (6.5, 1.0)
    assert cost.disk.interval_seconds == 200
    assert cost.disk.effective == effective_share(6.5, 200, 1.0)
    assert cost.disk.best_interval_seconds == pytest.approx(math.sqrt(2 * DAY / 6.5), rel=0.02)
    assert cost.disk.best_effective >= cost.disk.effective
    assert cost.memory.interval_seconds is cost.memory.effective is None


def test_copies_in_memory_are_not_taken_before_the_last_one_is_done():
    cost = failure_cost(10**5, 100, size(3 * 10**9), CheckpointsConfig(), step_seconds=None)
    assert cost.memory.best_interval_seconds == pytest.approx(23.0)
    assert cost.disk.best_interval_seconds < cost.memory.best_interval_seconds
    assert cost.disk.interval_seconds is None
