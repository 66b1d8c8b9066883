"""Text of a run's events, such as how much of the curve a resumed run reproduces."""

import pytest
from support.records.lines import corruption_found, rank_hung, wrong_reduction

from run_store.record.event_text import event_text
from run_store.record.metrics_lines import RankRecovered, Resized, Resumed, SlowRankFound
from trainer.state.numerics import promise

FAST = {"ranks": 2, "zero_stage": 1, "precision": "fp32", "threads": 1, "dropout": "16 bits"}
EXACT = FAST | {"exact_sums": 2}


def resumed(before, **changed):
    now = before | changed
    differences = {name: [before[name], value] for name, value in changed.items()}
    return Resumed(
        step=60, from_step=60, promise=promise(before, now), numerics_changed=differences
    )


@pytest.mark.parametrize(
    ("event", "said", "not_said"),
    [
        (resumed(FAST), ["step 60.", "Same data", "to the last bit"], "may differ"),
        (resumed(EXACT, ranks=3), ["on 3 ranks (before: 2)", "to the last bit"], "may differ"),
        (
            resumed(FAST, ranks=3),
            ["on 3 ranks (before: 2)", "Same data", "last digits", "engine.numerics=exact avoids"],
            "last bit",
        ),
        (resumed(FAST, zero_stage=3), ["zero_stage 1 → 3", "engine.numerics=exact"], "last bit"),
        (resumed(FAST, threads=4), ["last digits (threads 1 → 4)"], "engine.numerics"),
        (resumed(EXACT, threads=4), ["last digits (threads 1 → 4)"], "engine.numerics"),
        (resumed(FAST, precision="bf16"), ["Same data; losses differ", "fp32 → bf16"], "digits"),
    ],
)
def test_a_resumed_run_says_how_exactly_its_curve_continues(event, said, not_said):
    text = event_text(event)
    assert all(part in text for part in said)
    assert not_said not in text
    assert "promise" not in text


def test_a_resumed_run_lists_changed_settings_lost_steps_and_quarantined_shards():
    changed = {"trainer.max_steps": [40, 60], "checkpoints.best_by": ["loss", "bleu"]}
    event = resumed(FAST).model_copy(update={"settings_changed": changed, "lost_steps": 7})
    text = event_text(event)
    assert "trainer.max_steps 40 → 60, checkpoints.best_by loss → bleu" in text
    assert "again so far: 7" in text
    left_out = event_text(event.model_copy(update={"quarantined": ["train-00001.tar"]}))
    assert "Other data from here on, without train-00001.tar" in left_out
    assert "Same data" not in left_out


def test_texts_of_a_restart_without_a_checkpoint_and_of_a_resize():
    assert "from step 0" in event_text(Resumed(step=3, from_step=0, restarts=1))
    assert "Now trains on 3 ranks (before: 2)" in event_text(
        Resized(step=3, from_ranks=2, to_ranks=3)
    )


def test_a_slow_rank_is_described_by_its_factor_and_cause():
    slow = {"rank": 0, "node": "node-1", "factor": 2.034}
    found = SlowRankFound(step=9, cause="data", seconds=0.4123, other_seconds=0.2031, **slow)
    assert event_text(found) == (
        "Slow: rank 0 on node-1 needs 2.03 times as long as the others, because it waits longer "
        "for data (0.412 s per step, the others 0.203 s)."
    )
    assert "because it computes longer (" in event_text(
        found.model_copy(update={"cause": "compute"})
    )
    assert event_text(RankRecovered(step=9, rank=0, factor=1.02)) == (
        "No longer slow: rank 0 (1.02 times the time of the others)."
    )


def test_a_hang_names_rank_collective_and_step():
    assert event_text(rank_hung(7)) == (
        "Hang: Rank 1 on far did not enter gloo:all_reduce of 7×2 Float (number 104 of group "
        "1), which rank 0 entered in step 8."
    )


def test_corruption_names_rank_node_step_slot_and_parameter():
    text = event_text(corruption_found(7))
    assert text.startswith("Silent data corruption: rank 1 on node far ")
    for part in ("slot 3 of step 8", "x.weight", "was not applied."):
        assert part in text


def test_a_wrong_sum_names_step_and_parameter():
    text = event_text(wrong_reduction(7))
    assert text.startswith("Silent data corruption: the sum of the gradients of x.weight ")
    assert "in step 8. The gradients were not applied." in text
    assert " again, " in event_text(wrong_reduction(7, is_repeated=True))
