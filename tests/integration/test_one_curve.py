"""One recipe, one curve: over ranks, restarts, and without Ray."""

import pytest


@pytest.fixture(scope="module")
def one_rank(undisturbed):
    """A run of one rank without Ray: 60 steps, of that name."""
    undisturbed.train("one-rank", "trainer.max_steps=60", inline=True)
    return undisturbed


def test_the_same_data_and_curve_for_1_2_and_3_ranks(runs, one_rank, undisturbed):
    """60 steps of 5 micro-batches, which neither 2 nor 3 ranks divide."""
    runs.train("r3", "trainer.max_steps=60", "cluster.ranks=3")
    reference = one_rank.lines("one-rank")
    assert [line["step"] for line in reference] == list(range(1, 61))
    assert reference[-1]["loss"] < 0.8 * reference[0]["loss"]
    for ranks, others, name in ((2, undisturbed, "undisturbed"), (3, runs, "r3")):
        lines = others.lines(name)
        assert [line["world_size"] for line in lines] == [ranks] * 60
        assert others.digests(name) == one_rank.digests("one-rank")
        assert others.curve(name) == pytest.approx(one_rank.curve("one-rank"), rel=1e-5)
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


def test_inline_is_one_rank_without_ray(runs, one_rank):
    runs.train("ray", "trainer.max_steps=20", "cluster.ranks=1")
    assert runs.curve("ray") == one_rank.curve("one-rank")[:20]
    assert runs.digests("ray") == one_rank.digests("one-rank")[:20]
