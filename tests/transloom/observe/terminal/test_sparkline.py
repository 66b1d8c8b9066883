"""Sparklines: curves drawn in one line of text."""

import math

import pytest
from support.records.lines import train_line
from support.records.run_folders import made_run

from transloom.observe.terminal.run_feed import BLOCKS, RunFeed, sparkline


def test_a_sparkline_scales_from_the_lowest_to_the_highest_value():
    assert sparkline([3.0, 2.0, 1.0], 10) == "█▅▁"
    assert sparkline([3.0, 3.0, 2.0, 2.0, 1.0, 1.0], 3) == "█▅▁"


def test_equal_values_give_a_flat_sparkline():
    assert sparkline([2.0, 2.0], 10) == BLOCKS[0] * 2
    assert sparkline([2.0], 10) == BLOCKS[0]
    assert sparkline([], 10) == ""
    assert sparkline([1.0], 0) == ""
    assert sparkline([0.4, 0.1 + 0.3, 0.39999999999999997], 10) == BLOCKS[0] * 3


def test_a_sparkline_omits_missing_and_infinite_values():
    assert sparkline([1.0, None, math.nan, math.inf, 2.0], 10) == "▁█"
    assert sparkline([-1.7e308, 1.7e308], 10) == "▁▁"
    assert sparkline([1.7e308] * 4, 2) == "▁▁"


@pytest.mark.parametrize("steps", [10, 100, 10_000])
def test_the_sparkline_of_a_run_covers_all_steps(tmp_path, steps):
    lines = [train_line(step, loss=float(step)) for step in range(1, steps + 1)]
    rows = RunFeed(made_run(tmp_path / "run", *lines)).rows(80)
    (drawn,) = (row.text for row in rows if row.label == "loss")
    assert drawn == "".join(sorted(drawn))
    assert drawn[0] + drawn[-1] == BLOCKS[0] + BLOCKS[-1]
    assert len(drawn) == min(steps, 80 - 2 - max(len(row.label) for row in rows))
