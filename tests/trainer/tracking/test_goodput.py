"""Goodput compared with examples computed by hand."""

import pytest
from support.records.lines import skipped_line, train_line

from run_store.record.metrics_lines import Line, Preempted, Resumed, TrainLine
from trainer.tracking.goodput import Goodput, goodput_at_start


def after_steps(goodput: Goodput, *steps: tuple[float, float]) -> Goodput:
    for ended, seconds in steps:
        goodput = goodput.after_step(ended, seconds)
    return goodput


def recorded(restarts: int = 0, lost_steps: int = 0) -> TrainLine:
    """Return the line of step 7, 20 s after the start."""
    totals = {"restarts": restarts, "lost_steps": lost_steps}
    return train_line(7, time=1020.0, wall_seconds=20.0, counted_seconds=14.0, **totals)


def restart(last: TrainLine, resume_step: int, session_started: float, *events: Line) -> Goodput:
    """Return the goodput at a start whose record ends with a train line and these events."""
    return goodput_at_start([*reversed(events), last], resume_step, session_started)


def test_goodput_of_an_undisturbed_run_excludes_time_between_steps():
    start = goodput_at_start([], 0, session_started=1000.0)
    # The first step begins after 10 s; a step takes 2 s, and a validation after the second one 4 s.
    goodput = after_steps(start, (1012.0, 2.0), (1014.0, 2.0), (1020.0, 2.0))
    assert goodput.fields == {
        "restarts": 0,
        "lost_steps": 0,
        "wall_seconds": 20.0,
        "counted_seconds": 6.0,
        "goodput": 0.3,
    }


def test_a_restart_costs_all_time_since_the_last_recorded_step():
    goodput = restart(recorded(), 4, session_started=1000.0)
    assert (goodput.restarts, goodput.lost_steps) == (1, 3)
    # Steps 5 to 7 are repeated; step 8 takes 2 s, and ends 20 s after step 7 was recorded.
    goodput = goodput.after_step(1040.0, 2.0)
    assert goodput.fields == {
        "restarts": 1,
        "lost_steps": 3,
        "wall_seconds": 40.0,
        "counted_seconds": 16.0,
        "goodput": 0.4,
    }


def test_time_between_two_sessions_is_not_counted():
    # The next driver starts a day later, from a checkpoint of the last step.
    goodput = restart(recorded(), 7, session_started=90000.0).after_step(90005.0, 2.0)
    assert goodput.fields["wall_seconds"] == 25.0
    assert goodput.fields["counted_seconds"] == 16.0
    assert (goodput.restarts, goodput.lost_steps) == (1, 0)


def test_restarts_without_a_new_step_are_counted():
    last = recorded(restarts=1, lost_steps=2)
    died = Resumed(step=7, from_step=4, restarts=2, lost_steps=5)
    other = Preempted(step=7)
    goodput = restart(last, 4, 1000.0, died, other)
    assert (goodput.restarts, goodput.lost_steps) == (3, 8)
    assert goodput.wall_seconds == 20.0


def test_skipped_steps_that_are_repeated_count_as_lost_steps():
    last = recorded()
    skipped = skipped_line(8)
    goodput = restart(last, 4, 1000.0, skipped)
    assert (goodput.restarts, goodput.lost_steps) == (1, 4)
    assert goodput.after_step(1030.0, 2.0).fields["goodput"] == round(16 / 30, 4)


def test_a_restart_before_the_first_applied_step_is_counted():
    skipped = skipped_line(1)
    assert goodput_at_start([skipped], 0, 1000.0) == Goodput(1000.0, restarts=1, lost_steps=1)


def test_totals_begin_at_the_first_start_of_a_version_that_counts_them():
    """An earlier version, which did not count, has written the record."""
    goodput = restart(train_line(7, time=1020.0), 5, session_started=2000.0)
    assert goodput == Goodput(until=2000.0, restarts=1, lost_steps=2)


@pytest.mark.parametrize("session_started", [100.0, 1010.0])
def test_a_clock_that_was_set_back_does_not_reduce_the_times(session_started):
    last = recorded()
    goodput = restart(last, 7, session_started)
    goodput = after_steps(goodput, (200.0, 2.0), (203.0, 2.0))
    assert goodput.fields["wall_seconds"] == 25.0
    assert goodput.fields["counted_seconds"] == 18.0


def test_goodput_is_between_zero_and_one():
    goodput = Goodput(until=0.0)
    for step in range(1000):
        goodput = goodput.after_step(step * 0.1, 0.1)  # rounding makes steps overlap
        assert 0.0 < goodput.fields["goodput"] <= 1.0


def test_goodput_is_one_before_any_time_has_passed():
    assert Goodput(until=5.0).fields["goodput"] == 1.0


def test_a_record_is_read_backwards_only_to_the_last_train_line():
    def backwards():
        yield skipped_line(8)
        yield train_line(7, time=1020.0, restarts=3, lost_steps=2)
        raise AssertionError("a long record is not read further")

    goodput = goodput_at_start(backwards(), 7, 1000.0)
    assert (goodput.restarts, goodput.lost_steps) == (4, 3)
