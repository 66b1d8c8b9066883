"""Goodput by hand-computed examples."""

import pytest
from support.records.lines import skipped_line, train_line

from run_store.record.metrics_lines import Line, Preempted, Resumed, TrainLine
from trainer.tracking.goodput import Goodput, goodput_at_start


def after_steps(goodput: Goodput, *steps: tuple[float, float]) -> Goodput:
    for ended, seconds in steps:
        goodput = goodput.after_step(ended, seconds)
    return goodput


def recorded(restarts: int = 0, lost_steps: int = 0) -> TrainLine:
    """The line of step 7, 20 s after the start."""
    totals = {"restarts": restarts, "lost_steps": lost_steps}
    return train_line(7, time=1020.0, wall_seconds=20.0, counted_seconds=14.0, **totals)


def restart(last: TrainLine, resume_step: int, session_started: float, *events: Line) -> Goodput:
    """As a start finds it whose record ends with a train line and these events."""
    return goodput_at_start([*reversed(events), last], resume_step, session_started)


def test_an_undisturbed_run_loses_what_is_between_its_steps():
    start = goodput_at_start([], 0, session_started=1000.0)
    # 10 s until the first step begins, 2 s a step, 4 s for a validation after the second one.
    goodput = after_steps(start, (1012.0, 2.0), (1014.0, 2.0), (1020.0, 2.0))
    assert goodput.fields == {
        "restarts": 0,
        "lost_steps": 0,
        "wall_seconds": 20.0,
        "counted_seconds": 6.0,
        "goodput": 0.3,
    }


def test_a_restart_in_the_session_costs_all_the_time_since_the_last_recorded_step():
    last = recorded()
    goodput = restart(last, 4, session_started=1000.0)
    assert (goodput.restarts, goodput.lost_steps) == (1, 3)
    # Steps 5 to 7 are repeated; step 8, of 2 s, ends 20 s after step 7 was recorded.
    goodput = goodput.after_step(1040.0, 2.0)
    assert goodput.fields == {
        "restarts": 1,
        "lost_steps": 3,
        "wall_seconds": 40.0,
        "counted_seconds": 16.0,
        "goodput": 0.4,
    }


def test_between_two_sessions_no_time_passes():
    last = recorded()
    # The next driver starts a day later, from a checkpoint of the last step.
    goodput = restart(last, 7, session_started=90000.0).after_step(90005.0, 2.0)
    assert goodput.fields["wall_seconds"] == 25.0
    assert goodput.fields["counted_seconds"] == 16.0
    assert (goodput.restarts, goodput.lost_steps) == (1, 0)


def test_restarts_that_got_no_further_count_too():
    last = recorded(restarts=1, lost_steps=2)
    died = Resumed(step=7, from_step=4, restarts=2, lost_steps=5)
    other = Preempted(step=7)
    goodput = restart(last, 4, 1000.0, died, other)
    assert (goodput.restarts, goodput.lost_steps) == (3, 8)
    assert goodput.wall_seconds == 20.0


def test_skipped_steps_are_repeated_too_and_take_wall_time():
    last = recorded()
    skipped = skipped_line(8)
    goodput = restart(last, 4, 1000.0, skipped)
    assert (goodput.restarts, goodput.lost_steps) == (1, 4)
    assert goodput.after_step(1030.0, 2.0).fields["goodput"] == round(16 / 30, 4)


def test_a_start_before_any_step_is_recorded():
    skipped = skipped_line(1)
    assert goodput_at_start([skipped], 0, 1000.0) == Goodput(1000.0, restarts=1, lost_steps=1)


def test_the_totals_begin_with_the_first_start_that_counts():
    """The record was begun by a version that did not count."""
    goodput = restart(train_line(7, time=1020.0), 5, session_started=2000.0)
    assert goodput == Goodput(until=2000.0, restarts=1, lost_steps=2)


@pytest.mark.parametrize("session_started", [100.0, 1010.0])
def test_a_clock_that_was_set_back_does_not_count_backwards(session_started):
    last = recorded()
    goodput = restart(last, 7, session_started)
    goodput = after_steps(goodput, (200.0, 2.0), (203.0, 2.0))
    assert goodput.fields["wall_seconds"] == 25.0
    assert goodput.fields["counted_seconds"] == 18.0


def test_goodput_is_a_share():
    goodput = Goodput(until=0.0)
    for step in range(1000):
        goodput = goodput.after_step(step * 0.1, 0.1)  # rounding, and a step that began before
        assert 0.0 < goodput.fields["goodput"] <= 1.0


def test_before_any_time_has_passed_none_was_lost():
    assert Goodput(until=5.0).fields["goodput"] == 1.0


def test_a_record_is_read_backwards_to_its_last_step_that_counts():
    def backwards():
        yield skipped_line(8)
        yield train_line(7, time=1020.0, restarts=3, lost_steps=2)
        raise AssertionError("a long record is not read further")

    goodput = goodput_at_start(backwards(), 7, 1000.0)
    assert (goodput.restarts, goodput.lost_steps) == (4, 3)
