"""One recipe, one curve: over ranks, restarts, data workers, and without Ray."""

import os
import signal

import pytest
import ray
from support.sabotage import Saboteur, remember

from cluster import rank_supply


def test_the_same_data_and_curve_for_1_2_and_3_ranks(runs):
    """60 steps of 5 micro-batches, which neither 2 nor 3 ranks divide."""
    for ranks in (1, 2, 3):
        runs.train(f"r{ranks}", "trainer.max_steps=60", f"cluster.ranks={ranks}")
    reference = runs.lines("r1")
    assert [line["step"] for line in reference] == list(range(1, 61))
    assert reference[-1]["loss"] < 0.8 * reference[0]["loss"]
    for ranks in (2, 3):
        lines = runs.lines(f"r{ranks}")
        assert [line["world_size"] for line in lines] == [ranks] * 60
        assert runs.digests(f"r{ranks}") == runs.digests("r1")
        assert runs.curve(f"r{ranks}") == pytest.approx(runs.curve("r1"), rel=1e-5)
        assert [line["target_tokens"] for line in lines] == [
            line["target_tokens"] for line in reference
        ]


def test_a_run_that_was_stopped_repeats_the_undisturbed_one(runs):
    """2 ranks: 20 steps at once, and 10 + 10; then 10 more under another shape."""
    two = ["cluster.ranks=2"]
    runs.train("whole", *two, "trainer.max_steps=20")
    runs.train("parts", *two, "trainer.max_steps=10")
    result = runs.train("parts", *two, "trainer.max_steps=20")
    assert result.outcome == "finished"
    assert result.step == 20
    assert runs.curve("parts") == runs.curve("whole")  # bitwise
    assert runs.digests("parts") == runs.digests("whole")

    runs.train("whole", *two, "trainer.max_steps=30")
    runs.train("parts", "cluster.ranks=3", "engine.zero_stage=3", "trainer.max_steps=30")
    assert runs.curve("parts") == pytest.approx(runs.curve("whole"), rel=1e-5)
    assert runs.digests("parts") == runs.digests("whole")
    resumed = runs.lines("parts", "event")[-1]
    assert resumed["event"] == "resumed"
    assert resumed["numerics_changed"]["ranks"] == [2, 3]
    assert resumed["numerics_changed"]["zero_stage"] == [1, 3]


def test_inline_is_one_rank_without_ray(runs):
    runs.train("ray", "cluster.ranks=1")
    runs.train("inline", inline=True)
    assert runs.curve("inline") == runs.curve("ray")
    assert runs.digests("inline") == runs.digests("ray")


def test_a_killed_rank_is_replaced_and_the_curve_goes_on(runs, monkeypatch):
    options = ["cluster.ranks=2", "trainer.max_steps=60", "checkpoints.every_steps=10"]
    runs.train("undisturbed", *options)
    groups = remember(monkeypatch, rank_supply, "RankGroup")

    def second_rank():
        return [ray.get(groups[0].actors[1].process_id.remote())]

    with Saboteur(runs.folder / "killed" / "metrics.jsonl", 25, second_rank) as saboteur:
        result = runs.train("killed", *options)
    assert len(saboteur.hit) == 1
    assert len(groups) == 2
    assert result.outcome == "finished"
    assert runs.curve("killed") == runs.curve("undisturbed")
    assert runs.digests("killed") == runs.digests("undisturbed")
    (event,) = runs.lines("killed", "event")
    assert event["event"] == "resumed"
    assert event["from_step"] >= 20


def test_a_request_to_stop_leaves_a_checkpoint_and_exit_code_75(runs):
    runs.train("undisturbed", "cluster.ranks=2", "trainer.max_steps=60")

    record = runs.folder / "preempted" / "metrics.jsonl"
    with Saboteur(record, 15, lambda: [os.getpid()], signal.SIGTERM):
        result = runs.train("preempted", "cluster.ranks=2", "trainer.max_steps=60")
    assert result.outcome == "preempted"
    assert 15 <= result.step < 60
    assert len(runs.curve("preempted")) == result.step
    result = runs.train("preempted", "cluster.ranks=2", "trainer.max_steps=60")
    assert result.outcome == "finished"
    assert runs.curve("preempted") == runs.curve("undisturbed")
