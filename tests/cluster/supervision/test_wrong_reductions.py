"""A run whose ranks have summed gradients wrongly restarts them, and ends if no step succeeds."""

import pickle
from functools import partial

import pytest
from support.cluster.scripted_cluster import FINISHED, trained

from cluster.errors import RankLostError
from cluster.ranks.group import Poll
from cluster.supervision.retry_budget import ATTEMPTS_WITHOUT_PROGRESS
from run_store.record.corruption import ReductionError, ReductionFinding
from run_store.record.run_status import read_status

FINDING = ReductionFinding(
    checked_step=9, parameters=("x.weight",), parameter_count=1, is_repeated=True
)
WRONG = Poll([], failure=ReductionError(FINDING))


@pytest.fixture
def scripted(scripted):
    return partial(scripted, places=("a", "b", "c"), ranks={"min": 2, "max": 3})


def nodes(run):
    return [group.nodes for group in run.supply.groups]


def test_a_reduction_error_keeps_its_finding_when_it_is_pickled():
    copy = pickle.loads(pickle.dumps(WRONG.failure))  # noqa: S301
    assert (copy.finding, str(copy)) == (WRONG.failure.finding, str(WRONG.failure))


def test_ranks_restart_on_the_same_nodes_after_a_wrong_reduction(scripted):
    with scripted([[trained(8), WRONG], [trained(9), FINISHED]]) as run:
        assert run.loop.run() == "finished"
    assert nodes(run) == [["a", "b", "c"]] * 2
    (restart,) = read_status(run.context.run).vitals.restarts
    assert "the sum of the gradients of x.weight" in restart.cause


def test_a_run_whose_reductions_stay_wrong_ends_after_several_attempts(scripted):
    attempts = [[trained(8), WRONG]] + [[WRONG]] * ATTEMPTS_WITHOUT_PROGRESS
    with (
        scripted(attempts) as run,
        pytest.raises(RankLostError, match=r"x\.weight.*no further than step 8 in 3 attempts"),
    ):
        run.loop.run()
    assert len(run.supply.groups) == 1 + ATTEMPTS_WITHOUT_PROGRESS
