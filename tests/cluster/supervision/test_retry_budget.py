"""Failures that a run survives."""

import pytest

from cluster.errors import RankLostError
from cluster.supervision.retry_budget import RankLosses, RetryBudget

LOSS = RankLostError("Rank 1 has died")


@pytest.fixture
def losses():
    losses = RankLosses()
    losses.begin(7)
    return losses


def take(losses, *nodes, progressed=False):
    losses.reach(losses.furthest_step + progressed)
    return losses.take(LOSS, {node: f"node {node}" for node in nodes})


def test_the_restarts_are_counted(losses):
    assert take(losses) == "Rank 1 has died; restart 1 of this session"
    assert take(losses) == "Rank 1 has died; restart 2 of this session"


def test_three_in_a_row_without_progress_end_the_run(losses):
    take(losses)
    take(losses)
    with pytest.raises(RankLostError, match="no further than step 7 in 3 attempts") as raised:
        take(losses)
    assert raised.value.__cause__ is LOSS


def test_progress_forgives_all_before_it(losses):
    for _ in range(4):
        take(losses)
        take(losses)
        take(losses, progressed=True)
    take(losses)
    take(losses)
    with pytest.raises(RankLostError):
        take(losses)


def test_losses_of_nodes_are_no_failures_of_the_run(losses):
    for name in "abcdef":
        notice = take(losses, name)
    assert notice == (
        "Rank 1 has died; node node f is lost, which does not count as a failure; restart 6 of "
        "this session"
    )
    take(losses)
    take(losses)
    with pytest.raises(RankLostError, match="in 3 attempts"):
        take(losses)


def test_a_node_is_lost_once(losses):
    """A node that repeatedly comes back and fails again does not keep the run busy for ever."""
    notices = [take(losses, "b") for _ in range(3)]
    assert ["is lost" in notice for notice in notices] == [True, False, False]
    with pytest.raises(RankLostError, match="in 3 attempts"):
        take(losses, "b")


def test_a_lost_node_forgives_no_failure_before_it(losses):
    take(losses)
    take(losses)
    take(losses, "b")
    with pytest.raises(RankLostError, match="in 3 attempts"):
        take(losses)


def test_a_step_beyond_all_before_gives_the_whole_budget_again():
    budget = RetryBudget(3, furthest_step=4)

    def used_up(step):
        budget.reach(step)
        return budget.count_failure()

    assert [used_up(step) for step in (4, 2, 5, 5, 5, 5)] == [False] * 5 + [True]
    assert budget.failures == 3
    assert budget.used_up_text("attempts") == "The run got no further than step 5 in 3 attempts"


def test_the_step_that_an_attempt_starts_from_is_no_progress():
    budget = RetryBudget(1)
    budget.begin(20)
    budget.reach(20)
    assert budget.count_failure()
