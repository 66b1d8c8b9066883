"""`numerics: exact` in whole runs: the same bits for every number of ranks and ZeRO stage."""

import pytest
from support.cluster.sabotage import kill
from support.cluster.strike import Strike
from support.faults.moments import MID_STEP

from transloom.observe.comparison.comparison import compare_runs

EXACT = "engine.numerics=exact"
STEPS = 24


@pytest.fixture
def undisturbed(runs):
    """Return a run of one rank, which is never stopped, without Ray."""
    runs.train("whole", EXACT, f"trainer.max_steps={STEPS}", inline=True)
    return runs.folder / "whole"


@pytest.mark.proof
def test_a_run_that_changes_ranks_and_stage_and_loses_a_rank_has_the_bits_of_an_undisturbed_run(
    runs, undisturbed, orders
):
    shape = ("cluster.ranks=2", "engine.zero_stage=2", f"trainer.max_steps={STEPS}")
    runs.train("moved", EXACT, "engine.zero_stage=3", "trainer.max_steps=10", inline=True)
    with Strike(orders, MID_STEP, lambda reached: kill(reached.process_id)):
        runs.train("moved", EXACT, *shape)
    comparison = compare_runs(undisturbed, runs.folder / "moved")
    assert comparison.is_same, comparison
    assert (comparison.steps, comparison.checkpoint_step) == (STEPS, STEPS)
    assert comparison.tensors > 50
    norms = [[line["grad_norm"] for line in runs.lines(name)] for name in ("whole", "moved")]
    assert norms[0] == norms[1]
    resumed, resized, recovered, _ = runs.lines("moved", "event")
    assert resumed["promise"] == (
        "same data, and the same losses and weights to the last bit although ranks was 1 and is 2 "
        "and zero_stage was 3 and is 2, because numerics are exact"
    )
    assert resumed["numerics_changed"] == {"ranks": [1, 2], "zero_stage": [3, 2]}
    assert resized["event"] == "resized"
    assert (resized["from_ranks"], resized["to_ranks"]) == (1, 2)
    assert (recovered["event"], recovered["from_step"]) == ("resumed", 10)
    assert recovered["lost_steps"] > 0


def test_fast_numerics_promise_only_rounding_and_cannot_become_exact(inline_runs):
    inline_runs.train("fast", "trainer.max_steps=2", inline=True)
    inline_runs.train("fast", "trainer.max_steps=4", "engine.attention=sdpa", inline=True)
    (resumed,) = inline_runs.lines("fast", "event")
    assert resumed["promise"] == (
        "same data, but losses and weights are the same only up to rounding, because attention was "
        "matmul and is sdpa"
    )
    with pytest.raises(Exception, match=r"engine.numerics: 'fast' there, 'exact' here"):
        inline_runs.train("fast", EXACT, "trainer.max_steps=6", inline=True)
