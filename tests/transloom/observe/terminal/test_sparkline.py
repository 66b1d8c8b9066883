"""Curves in a line of text."""

import math

import pytest

from transloom.observe.terminal.sparkline import BLOCKS, Series, sparkline


def series(*values, **options):
    made = Series(**options)
    for step, value in enumerate(values, start=1):
        made.add(step, value)
    return made


def test_the_lowest_and_the_highest_value_are_the_ends_of_the_scale():
    assert sparkline(series(3.0, 2.0, 1.0), 10) == "█▅▁"


def test_a_run_of_one_value_is_a_flat_line():
    assert sparkline(series(2.0, 2.0), 10) == BLOCKS[0] * 2
    assert sparkline(series(2.0), 10) == BLOCKS[0]
    assert sparkline(series(), 10) == ""
    assert sparkline(series(1.0), 0) == ""


def test_values_that_are_no_numbers_are_left_out():
    assert sparkline(series(1.0, None, math.nan, math.inf, 2.0), 10) == "▁█"
    assert sparkline(series(-1.7e308, 1.7e308), 10) == "▁▁"


@pytest.mark.parametrize("steps", [10, 100, 10_000])
def test_the_whole_run_is_shown_however_long_it_is(steps):
    rising = series(*range(steps), most=64)
    assert len(rising.points) < 128
    assert sparkline(rising, 8) == BLOCKS


def test_a_spike_is_kept_where_it_counts():
    values = [1.0] * 5000
    values[2500] = 1000.0
    assert "█" in sparkline(series(*values, most=64, keeps_spikes=True), 20)


def test_repeated_steps_are_taken_once():
    made = series(5.0, 4.0)
    made.add(1, 100.0)
    assert [point.value for point in made.points] == [5.0, 4.0]


def test_steps_that_are_missing_leave_no_hole():
    made = Series()
    for step in (1, 2, 3, 1000):
        made.add(step, float(step))
    assert len(made.columns(4)) == 4
