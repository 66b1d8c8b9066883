"""The verdict on a replay: values that must be reproduced, and the first difference."""

import pytest
from support.records.checkpoints import make_header
from support.records.lines import skipped_line, train_line

from cluster.recipe import Recipe
from run_store.errors import RunError
from run_store.folder import StepRange
from run_store.record.metrics_file import REPLAY_TOLERANCE
from run_store.record.metrics_lines import ReplayMismatch, Resumed
from trainer.recipe import TrainingRecipe, leaves
from trainer.replay.rank_reports import RankStateReport
from transloom.observe.replay.recorded_steps import CHANGES_NO_STEP, RecordedSteps
from transloom.observe.replay.replay_verdict import ComparedState, UnreadableData, compare_replay

BITS = (True, "to the last bit")
ROUNDED = (False, "up to rounding")
STEPS = StepRange(3, 6)


def judged(change=None, promise=BITS, states=(), unreadable=None, step=4):
    """Return the verdict on steps 3 to 6, after a change of one replayed line."""
    recorded = RecordedSteps.of(train_line(number) for number in range(1, 9))
    lines = {number: train_line(number) for number in range(3, 7)}
    if change:
        lines[step] = lines[step].model_copy(update=change)
    return compare_replay(recorded, lines, states, promise, unreadable)


def test_equal_lines_give_the_verdict_same():
    verdict = judged()
    assert verdict.same
    assert (verdict.data, verdict.losses, verdict.state) == ("same", "same", "not_compared")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"data_digest": "x", "loss": 9.0}, "data"),
        ({"target_tokens": 11}, "data"),
        ({"loss": 0.25000000000000006, "grad_norm": 7.0}, "loss"),
        ({"nll": 0.22500000000000003}, "loss"),
        ({"grad_norm": 1.0000000000000002, "learning_rate": 7.0}, "gradient norm"),
        ({"learning_rate": 0.2}, "learning rate"),
    ],
)
def test_the_first_different_field_is_reported(change, what):
    verdict = judged(change)
    assert not verdict.same
    assert (verdict.first_difference.step, verdict.first_difference.what) == (4, what)
    assert (verdict.data == "different") == (what == "data")
    assert verdict.losses == ("different" if what != "data" or "loss" in change else "same")


def test_rounding_is_allowed_where_bits_are_not_promised():
    little = {"loss": 0.25 * (1 + REPLAY_TOLERANCE / 2), "grad_norm": 1 + REPLAY_TOLERANCE / 2}
    assert judged(little, ROUNDED).same
    assert judged({"loss": 0.25 * (1 + 2 * REPLAY_TOLERANCE)}, ROUNDED).losses == "different"
    assert not judged({"learning_rate": 0.1000001}, ROUNDED).same
    other = ComparedState(4, 2, {"master:a": 0.1})
    assert judged(promise=ROUNDED, states=[other]).same  # bits of the state may differ


def apart_from(differences, by=None):
    """Return the verdict on a replay with these relative differences of loss, NLL and norm."""
    steps = range(1, len(differences) + 1)
    lines = {n: train_line(n) for n in steps}
    replayed = {}
    for step, difference in zip(steps, differences, strict=True):
        fields = {f: getattr(lines[step], f) for f in ("loss", "nll", "grad_norm")}
        replayed[step] = lines[step].model_copy(
            update={f: value * (1 + difference) for f, value in fields.items()}
        )
    if by:
        lines[len(lines)] = lines[len(lines)].model_copy(update=by)
    return compare_replay(RecordedSteps(lines), replayed, (), ROUNDED, ranks_for_bits=2)


def test_gradually_amplified_rounding_is_accepted():
    verdict = apart_from([0.0, 3e-8, 1e-6, 2e-7, 3e-5, 4e-4, 1e-4, 3e-3, 2e-2])
    assert (verdict.same, verdict.losses, verdict.amplified_rounding) == (True, "same", True)
    assert verdict.largest_difference == pytest.approx(2e-2)
    assert verdict.ranks_for_bits == 2
    assert not apart_from([0.0, 3e-8, 9e-6]).amplified_rounding  # the growth is too small


@pytest.mark.parametrize(
    ("differences", "what"),
    [
        ([0.0, 0.0, 2e-4], "loss"),  # without a difference before
        ([0.0, 3e-8, 5e-4, 5e-4], "loss"),
        ([1e-8, 1e-6, 1e-4, 1e-2, 0.2], "loss"),  # more than amplified rounding can reach
    ],
)
def test_a_loss_that_jumps_is_not_explained_by_rounding(differences, what):
    verdict = apart_from(differences)
    assert (verdict.same, verdict.losses, verdict.amplified_rounding) == (
        False,
        "different",
        False,
    )
    assert verdict.first_difference.what == what


def test_a_changed_record_is_found_although_losses_drift():
    drift = [0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-5]
    assert apart_from(drift).same
    changed = apart_from(drift, by={"loss": 1 / 6 * 1.01})
    assert changed.first_difference.step == 6
    assert apart_from(drift, by={"data_digest": "x"}).data == "different"
    assert apart_from(drift, by={"learning_rate": 0.1000001}).first_difference.what == (
        "learning rate"
    )


def test_the_state_after_a_step_is_compared_after_the_steps_line():
    other = ComparedState(4, 2, {"master:a": 0.1, "exp_avg:a": 0.2})
    verdict = judged(states=[other])
    assert (verdict.state, verdict.losses, verdict.tensors) == ("different", "same", 2)
    assert verdict.first_difference.details == ["master:a", "exp_avg:a"]
    assert judged({"loss": 5.0}, states=[other]).first_difference.what == "loss"
    assert judged({"loss": 5.0}, states=[other], step=5).first_difference.what == "state"


def test_reports_of_ranks_are_merged_in_the_order_of_the_model():
    parts = [
        RankStateReport(tensors=["master:b", "master:a"], different={"master:b": 0.1}),
        RankStateReport(tensors=["master:b"], different={"master:b": 0.3, "master:z": None}),
    ]
    state = ComparedState.of(4, parts, ["z", "b", "a"])
    assert (state.tensors, state.problem) == (2, None)
    assert list(state.different.items()) == [("master:z", None), ("master:b", 0.3)]
    unread = RankStateReport(tensors=[], different={}, problem="gone")
    assert judged(states=[ComparedState.of(4, [unread], [])]).state == "not_compared"


def test_unreadable_data_is_a_difference():
    verdict = judged(unreadable=UnreadableData(7, "shard 3 has another hash"))
    assert (verdict.same, verdict.data) == (False, "unreadable")
    assert verdict.first_difference.step == 7


def test_a_skipped_step_must_be_skipped_in_the_replay():
    recorded = RecordedSteps.of([skipped_line(1), train_line(2)])
    lines = {1: skipped_line(1), 2: train_line(2)}
    assert compare_replay(recorded, lines, (), BITS).same
    verdict = compare_replay(recorded, lines | {1: train_line(1)}, (), BITS)
    assert verdict.first_difference.what == "whether the step counts"
    assert not compare_replay(recorded, lines | {1: skipped_line(1, slots=[2])}, (), BITS).same


def test_a_replay_is_compared_with_the_last_repetition_of_a_step():
    """Fields that the record of the repetition lacks are not compared."""
    fields = {"data_digest": ["d4", "x"], "loss": [0.25, 0.5]}
    mismatch = ReplayMismatch(step=8, replayed_step=4, fields=fields)
    recorded = RecordedSteps.of([*(train_line(number) for number in range(1, 9)), mismatch])
    again = train_line(4).model_copy(update={"data_digest": "x", "loss": 0.5, "grad_norm": 3.0})
    assert compare_replay(recorded, {4: again}, (), BITS).same
    assert not compare_replay(recorded, {4: train_line(4)}, (), BITS).same


def starts(*events):
    return RecordedSteps.of([train_line(1), *events])


def test_replaying_across_a_change_that_may_affect_steps_is_refused():
    changed = {"trainer.new_setting": [1, 2], "trainer.max_steps": [10, 20]}
    recorded = starts(Resumed(step=5, from_step=4, settings_changed=changed))
    with pytest.raises(RunError):
        recorded.require_settings(3, 6)
    assert recorded.require_settings(5, 9) == {}  # the settings of the last start
    assert recorded.require_settings(1, 4) == {"trainer.new_setting": 1}
    only = starts(Resumed(step=5, from_step=4, settings_changed={"trainer.max_steps": [1, 2]}))
    assert only.require_settings(3, 6) == {}


def test_every_continuable_setting_is_listed_as_changing_no_step():
    """Replays across a change of an unlisted setting are refused."""
    from pathlib import Path

    from support.recipes import tiny_values
    from support.tasks import language_model_values

    for values in (tiny_values(Path("d")), language_model_values(Path("d"))):
        recipe = Recipe.of(values)
        assert isinstance(recipe, TrainingRecipe)
        for name, _, change in leaves(recipe):
            assert change != "continuable" or name.startswith(CHANGES_NO_STEP), name


FAST = {"ranks": 2, "threads": 1}
EXACT = FAST | {"exact_sums": 2}


@pytest.mark.parametrize(
    ("before", "now", "bits", "ranks_for_bits"),
    [
        (FAST, FAST, True, None),
        (FAST, FAST | {"ranks": 1}, False, 2),
        (FAST, FAST | {"ranks": 1, "threads": 2}, False, None),
        (EXACT, EXACT | {"ranks": 1}, True, None),
        (EXACT, EXACT | {"threads": 2}, False, None),
    ],
)
def test_equal_bits_are_promised_only_for_suitable_numerics(before, now, bits, ranks_for_bits):
    recorded = RecordedSteps.of(train_line(number, world_size=2) for number in range(1, 9))
    header = make_header(2, numerics=before)
    promised, words = recorded.promise(header, now, STEPS)
    assert promised == bits
    assert ("last bit" in words) == bits
    assert recorded.ranks_for_bits(header, now, STEPS) == ranks_for_bits


def test_steps_by_different_numbers_of_ranks_get_the_weakest_promise():
    moved = Resumed(step=5, from_step=4, numerics_changed={"ranks": [2, 1]})
    lines = [train_line(number, world_size=2) for number in range(1, 9)]
    recorded = RecordedSteps.of([*lines, moved])
    assert not recorded.promise(make_header(2, numerics=FAST), FAST, STEPS)[0]
    assert recorded.promise(make_header(2, numerics=EXACT), EXACT, STEPS)[0]
    assert recorded.promise(make_header(4, numerics=FAST), FAST, StepRange(7, 8))[0]
    mixed = RecordedSteps.of([*lines[:4], train_line(5, world_size=3)])
    assert not mixed.promise(make_header(2, numerics=FAST), FAST, STEPS)[0]
    assert mixed.ranks_for_bits(make_header(2, numerics=FAST), FAST, STEPS) is None
    assert not recorded.promise(None, FAST, STEPS)[0]


def test_the_promise_depends_on_numerics_after_the_checkpoint():
    one, two = FAST | {"ranks": 1}, FAST
    after = StepRange(5, 8)
    lines = [train_line(number, world_size=1 if number < 5 else 2) for number in range(1, 9)]
    resumed = Resumed(step=4, from_step=4, numerics_changed={"ranks": [1, 2]})
    recorded = RecordedSteps.of([*lines[:4], resumed, *lines[4:]])
    header = make_header(4, numerics=one)
    assert recorded.promise(header, two, after)[0]
    assert not recorded.promise(header, one, after)[0]
    assert recorded.ranks_for_bits(header, one, after) == 2

    killed = Resumed(step=8, from_step=4, numerics_changed={})  # same numerics
    moved_twice = RecordedSteps.of([*lines[:4], resumed, *lines[4:], killed])
    assert not moved_twice.promise(header, two, after)[0]
    threads = Resumed(step=6, from_step=6, numerics_changed={"threads": [1, 4]})
    more_threads = RecordedSteps.of([*lines[:4], resumed, *lines[4:], threads])
    assert not more_threads.promise(header, two, after)[0]
