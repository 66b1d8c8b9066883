"""Thresholds of the spike guard compared with brute force, and the loop's steps around a spike."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.ranks.loop_parts import Story, make_trainer, recipe
from support.records.lines import skipped_line

from run_store.checkpoints.format import SPIKE_GUARD, RecentSteps
from run_store.record.metrics_lines import SkippedLine, TrainLine, parse_line
from trainer.config import SpikeGuardConfig
from trainer.errors import NonFiniteLossError, SpikeError
from trainer.state.progress import Progress
from trainer.training.spike_guard import (
    MIN_RELATIVE_DEVIATION,
    Spike,
    SpikeGuard,
    find_spike,
    spiking_slots,
    threshold,
    with_step,
)
from trainer.training.step_exchange import refusal_notice

GUARD = SpikeGuardConfig(window=4, minimum_steps=3, loss_deviations=5, norm_deviations=8)
values = st.floats(-1e6, 1e6, allow_subnormal=False)


def by_numpy(window, deviations):
    middle = np.median(window)
    mad = 1.4826 * np.median(np.abs(np.array(window) - middle))
    return middle + deviations * max(mad, 0.01 * abs(middle))


@given(st.lists(values, min_size=1, max_size=30), st.floats(0.1, 100))
def test_a_threshold_is_derived_from_median_and_mad_of_its_window(window, deviations):
    found = threshold(window, deviations)
    if found == math.inf:
        assert by_numpy(window, deviations) == np.median(window) == 0
        return
    assert found == pytest.approx(by_numpy(window, deviations), rel=1e-12)
    assert found >= np.median(window)


def test_a_threshold_does_not_depend_on_the_order_of_the_window():
    window = [float(number) for number in np.random.default_rng(1).normal(3, 1, size=101)]
    assert threshold(window, 10) == threshold(sorted(window), 10) == threshold(window[::-1], 10)


@pytest.mark.parametrize("deviations", [1.0, 10.0])
def test_after_quiet_steps_a_small_difference_is_not_a_spike(deviations):
    assert threshold([2.0] * 50, deviations) == pytest.approx(
        2 * (1 + deviations * MIN_RELATIVE_DEVIATION)
    )
    assert threshold([0.0] * 50, deviations) == math.inf


def test_a_single_value_of_the_window_moves_the_threshold_little():
    steady = [2.0, 2.1, 1.9, 2.05, 1.95, 2.0, 2.1]
    assert threshold([*steady, 1e9], 10) < 2 * threshold(steady, 10)


def spike_of(losses, loss, norm=1.0, config=GUARD):
    window = RecentSteps(losses=tuple(losses), grad_norms=(1.0,) * len(losses))
    return find_spike(config, window, loss, norm)


def test_the_guard_acts_after_the_minimum_number_of_steps():
    assert spike_of([2.0] * 2, 1e9) is None
    assert spike_of([2.0] * 3, 1e9) == (1e9, 1.0, 2 * 1.05, 1.08)


@pytest.mark.parametrize(
    ("loss", "norm", "spikes"),
    [(2.0, 1.0, False), (2.1, 1.08, False), (2.2, 1.0, True), (2.0, 1.1, True), (0.0, 0.0, False)],
)
def test_only_a_value_above_a_threshold_is_a_spike(loss, norm, spikes):
    assert (spike_of([2.0] * 4, loss, norm) is not None) == spikes


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_a_non_finite_norm_is_left_to_the_engine(norm):
    assert spike_of([2.0] * 4, 1e9, norm) is None


def test_a_window_has_only_the_last_steps():
    window = RecentSteps()
    for step in range(7):
        window = with_step(window, 4, float(step), 10.0 * step)
    assert window == RecentSteps(losses=(3, 4, 5, 6), grad_norms=(30, 40, 50, 60))
    assert RecentSteps.model_validate_json(window.model_dump_json()) == window


@pytest.mark.parametrize("fields", [{"losses": (1.0,)}, {"grad_norms": (math.nan,)}])
def test_a_window_with_wrong_values_is_refused(fields):
    with pytest.raises(ValidationError):
        RecentSteps(**{"losses": (), "grad_norms": ()} | fields)


def test_a_guard_whose_window_is_too_short_to_act_is_refused():
    with pytest.raises(ValidationError, match=r"minimum_steps is 50.*holds only 20.*raise window"):
        SpikeGuardConfig(window=20)


def test_slots_above_the_threshold_are_named_or_else_the_largest():
    spike = Spike(loss=3.0, grad_norm=9.0, loss_threshold=2.0, grad_norm_threshold=1.0)
    # Losses per unit are 1, 2.5, 4 and, for the slot without units, 0.
    losses, units = [10.0, 25.0, 20.0, 0.0], [10, 10, 5, 0]
    assert spiking_slots(spike, losses, units) == [1, 2]
    assert spiking_slots(replace_threshold(spike, 5.0), losses, units) == [2]


def replace_threshold(spike, loss_threshold):
    return spike._replace(loss_threshold=loss_threshold)


def window_of(progress):
    return RecentSteps(**progress.guard_states[SPIKE_GUARD])


def guarded(**settings):
    guard = {"window": 4, "minimum_steps": 3, "loss_deviations": 100, "norm_deviations": 20}
    return recipe(spike_guard=guard | settings, **{"max_steps": 9})


@pytest.mark.parametrize(
    "story",
    [Story(loss_factors={5: 50.0}), Story(norms={5: 20.0})],
    ids=["loss", "gradient norm"],
)
def test_a_spike_is_discarded_and_recorded_with_its_cause(tmp_path, story):
    trainer = make_trainer(story, guarded(), tmp_path, ema=True)
    trainer.train()
    assert story.of("discarded") == [("discarded", 5)]
    applied = [1, 2, 3, 4, 6, 7, 8, 9]
    assert [event[1] for event in story.of("applied")] == applied
    assert [event[1] for event in story.of("averaged")] == applied
    (line,) = (line for line in story.lines if isinstance(line, SkippedLine))
    assert (line.step, line.cause, line.in_a_row) == (5, "spike", 1)
    assert (line.skipped_steps, line.skipped_spikes) == (1, 1)
    assert line.ranks == [0]
    assert parse_line(line.to_json().encode()) == line
    window = [line for line in story.lines if isinstance(line, TrainLine)][:4]
    assert line.loss_threshold == threshold([line.loss for line in window], 100)
    assert line.grad_norm_threshold == threshold([line.grad_norm for line in window], 20)
    (notice,) = story.notices
    assert notice == refusal_notice(line, tmp_path)
    value, limit = (
        (line.grad_norm, line.grad_norm_threshold)
        if story.norms
        else (line.loss, line.loss_threshold)
    )
    assert value > limit
    for part in (
        "step 5",
        f"{value:.4g}",
        f"{limit:.4g}",
        f"data trace {tmp_path} --steps 5 --texts",
    ):
        assert part in notice
    (progress, _) = story.saved[-1]
    assert (progress.skipped_steps, progress.skipped_spikes, progress.skipped_in_a_row) == (1, 1, 0)
    (after,) = (window_of(saved) for saved, _ in story.saved if saved.step == 6)
    lines = [line for line in story.lines if isinstance(line, TrainLine)]
    known = [line for line in lines if line.step in (2, 3, 4, 6)]
    assert after.losses == tuple(line.loss for line in known)
    assert after.grad_norms == tuple(line.grad_norm for line in known)


def test_without_a_guard_no_step_is_refused_and_no_window_is_kept(tmp_path):
    story = Story(loss_factors={5: 50.0}, norms={6: 20.0})
    make_trainer(story, recipe(max_steps=9), tmp_path).train()
    assert [event[1] for event in story.of("applied")] == list(range(1, 10))
    assert story.saved[-1][0].guard_states == {}
    assert story.notices == []


def test_a_resumed_run_decides_by_the_window_of_its_checkpoint(tmp_path):
    """Otherwise spikes would be applied until the window has enough steps again."""
    whole, halved = Story(norms={5: 20.0}), Story(norms={5: 20.0})
    make_trainer(whole, guarded(), tmp_path).train()
    (at_four,) = (saved for saved, _ in whole.saved if saved.step == 4)
    make_trainer(halved, guarded(), tmp_path, replace(at_four)).train()
    assert [line.kind for line in halved.lines if line.step == 5] == ["skipped"]
    skipped = [[x for x in story.lines if x.kind == "skipped"] for story in (whole, halved)]
    assert skipped[0] == skipped[1]
    assert whole.saved[-1] == halved.saved[-1]


def test_spikes_in_a_row_end_the_run_with_values_and_remedies(tmp_path):
    story = Story(norms={5: 20.0, 6: 30.0, 7: 40.0})
    trainer = make_trainer(story, guarded(), tmp_path)
    with pytest.raises(SpikeError) as error:
        trainer.train()
    (*_, last) = story.lines
    assert (last.step, last.in_a_row, last.grad_norm) == (7, 3, 40.0)
    said = str(error.value)
    limit = f"threshold {last.grad_norm_threshold:.4g}"
    for part in ("norm 40 ", limit, "slots [", "of ranks [0]"):
        assert part in said
    for remedy in ("trainer.init_from", "trainer.spike_guard", "trainer.stop_after_skipped_steps"):
        assert remedy in said
    assert story.events[-1] == ("written", 7)


@pytest.mark.parametrize("order", ["spike first", "spike last"])
def test_spikes_and_non_finite_steps_count_as_one_row(tmp_path, order):
    spikes, bad = ({5, 6}, {7}) if order == "spike first" else ({7}, {5, 6})
    story = Story(bad=bad, norms=dict.fromkeys(spikes, 20.0))
    expected = NonFiniteLossError if 7 in bad else SpikeError
    with pytest.raises(expected):
        make_trainer(story, guarded(), tmp_path).train()
    skipped = [line for line in story.lines if line.kind == "skipped"]
    assert [line.cause == "spike" for line in skipped] == [line.step in spikes for line in skipped]
    assert skipped[-1].skipped_spikes == len(spikes)


def test_a_sum_that_overflows_counts_as_non_finite_with_a_guard(tmp_path):
    story = Story(overflows={5})
    make_trainer(story, guarded(), tmp_path).train()
    (line,) = (line for line in story.lines if line.kind == "skipped")
    assert (line.cause, line.loss, line.slots) == ("not finite", None, [])


def test_the_recorded_loss_of_a_spike_is_that_of_the_whole_step(tmp_path):
    story, usual = Story(loss_factors={5: 50.0}), Story()
    make_trainer(story, guarded(), tmp_path).train()
    make_trainer(usual, recipe(max_steps=9), tmp_path).train()
    (line,) = (line for line in story.lines if line.kind == "skipped")
    assert line.loss == pytest.approx(50 * usual.lines[4].loss)


def test_skipped_lines_of_earlier_versions_have_the_cause_not_finite():
    text = (
        b'{"version": 2, "step": 3, "epoch": 0, "window": 0, "offset": 2, "data_digest": "d3", '
        b'"kind": "skipped", "slots": [1], "ranks": [0], "in_a_row": 1, "skipped_steps": 1}'
    )
    assert parse_line(text) == skipped_line(3)
    assert skipped_line(3).reason == "its loss or gradient was not finite in 1 slot"


def test_a_new_guard_has_an_empty_window():
    assert SpikeGuard(GUARD).state() == {"losses": [], "grad_norms": []}
    assert Progress().guard_states == {}
