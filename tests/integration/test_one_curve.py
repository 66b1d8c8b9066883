"""One recipe, one curve: over ranks, restarts, and without Ray."""

import pytest


def test_the_same_data_and_curve_for_1_2_and_3_ranks(runs, undisturbed):
    """60 steps of 5 micro-batches, which neither 2 nor 3 ranks divide."""
    for ranks in (1, 3):
        runs.train(f"r{ranks}", "trainer.max_steps=60", f"cluster.ranks={ranks}")
    reference = runs.lines("r1")
    assert [line["step"] for line in reference] == list(range(1, 61))
    assert reference[-1]["loss"] < 0.8 * reference[0]["loss"]
    for ranks, others, name in ((2, undisturbed, "undisturbed"), (3, runs, "r3")):
        lines = others.lines(name)
        assert [line["world_size"] for line in lines] == [ranks] * 60
        assert others.digests(name) == runs.digests("r1")
        assert others.curve(name) == pytest.approx(runs.curve("r1"), rel=1e-5)
        assert [line["target_tokens"] for line in lines] == [
            line["target_tokens"] for line in reference
        ]


def test_a_run_that_was_stopped_repeats_the_undisturbed_one(runs, undisturbed):
    """2 ranks: 20 steps at once; 10, and 10 more under another shape.

    That more under the same shape would be the same to the last bit, the faults show.
    """
    whole = undisturbed.curve("undisturbed")[:20]
    runs.train("parts", "cluster.ranks=2", "trainer.max_steps=10")
    assert runs.curve("parts") == whole[:10]  # bitwise

    other_shape = ["cluster.ranks=3", "engine.zero_stage=3"]
    result = runs.train("parts", *other_shape, "trainer.max_steps=20")
    assert (result.outcome, result.step) == ("finished", 20)
    assert runs.curve("parts") == pytest.approx(whole, rel=1e-5)
    assert runs.digests("parts") == undisturbed.digests("undisturbed")[:20]
    resumed, resized = runs.lines("parts", "event")[-2:]
    assert (resumed["event"], resized["event"]) == ("resumed", "resized")
    assert (resized["from_ranks"], resized["to_ranks"]) == (2, 3)
    assert resumed["numerics_changed"]["ranks"] == [2, 3]
    assert resumed["numerics_changed"]["zero_stage"] == [1, 3]


def test_inline_is_one_rank_without_ray(runs):
    runs.train("ray", "cluster.ranks=1")
    runs.train("inline", inline=True)
    assert runs.curve("inline") == runs.curve("ray")
    assert runs.digests("inline") == runs.digests("ray")
