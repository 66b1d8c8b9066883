"""Count losses, and end a run that makes no progress."""

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


def test_notices_contain_the_number_of_restarts(losses):
    assert take(losses) == "Rank 1 has died; restart 1 of this session"
    assert take(losses) == "Rank 1 has died; restart 2 of this session"


def test_three_losses_in_a_row_without_progress_end_the_run(losses):
    take(losses)
    take(losses)
    with pytest.raises(RankLostError, match="no further than step 7 in 3 attempts") as raised:
        take(losses)
    assert raised.value.__cause__ is LOSS


def test_progress_resets_the_count_of_losses(losses):
    for _ in range(4):
        take(losses)
        take(losses)
        take(losses, progressed=True)
    take(losses)
    take(losses)
    with pytest.raises(RankLostError):
        take(losses)


def test_the_loss_of_a_node_does_not_count_as_a_failure(losses):
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


def test_the_loss_of_the_same_node_is_forgiven_only_once(losses):
    """A node that repeatedly returns and fails does not keep the run restarting forever."""
    notices = [take(losses, "b") for _ in range(3)]
    assert ["is lost" in notice for notice in notices] == [True, False, False]
    with pytest.raises(RankLostError, match="in 3 attempts"):
        take(losses, "b")


def test_the_loss_of_a_node_does_not_reset_the_count_of_failures(losses):
    take(losses)
    take(losses)
    take(losses, "b")
    with pytest.raises(RankLostError, match="in 3 attempts"):
        take(losses)


def test_a_new_furthest_step_resets_the_retry_budget():
    budget = RetryBudget(3, furthest_step=4)

    def used_up(step):
        budget.reach(step)
        return budget.count_failure()

    assert [used_up(step) for step in (4, 2, 5, 5, 5, 5)] == [False] * 5 + [True]
    assert budget.failures == 3
    assert budget.used_up_text("attempts") == "The run got no further than step 5 in 3 attempts"


def test_the_step_at_which_an_attempt_starts_is_no_progress():
    budget = RetryBudget(1)
    budget.begin(20)
    budget.reach(20)
    assert budget.count_failure()
