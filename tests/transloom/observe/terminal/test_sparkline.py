"""Curves in a line of text."""

import math

import pytest
from support.records.lines import train_line, validation_line

from transloom.observe.terminal.picture_blocks import BLOCKS, blocks_of, sparkline
from transloom.observe.terminal.run_picture import MOST_POINTS, RunPicture


def curve_of(picture, title, width=80):
    """The characters of a curve in a run's picture."""
    rows = (text for block in blocks_of(picture, width) for text in block.texts)
    row = next(content.plain for label, content in rows if label.startswith(title))
    return "".join(character for character in row if character in BLOCKS)


def test_the_lowest_and_the_highest_value_are_the_ends_of_the_scale():
    assert sparkline([3.0, 2.0, 1.0], 10) == "█▅▁"
    assert sparkline([3.0, 3.0, 2.0, 2.0, 1.0, 1.0], 3) == "█▅▁"


def test_a_run_of_one_value_is_a_flat_line():
    assert sparkline([2.0, 2.0], 10) == BLOCKS[0] * 2
    assert sparkline([2.0], 10) == BLOCKS[0]
    assert sparkline([], 10) == ""
    assert sparkline([1.0], 0) == ""
    assert sparkline([0.4, 0.1 + 0.3, 0.39999999999999997], 10) == BLOCKS[0] * 3


def test_values_that_are_no_numbers_are_left_out():
    assert sparkline([1.0, None, math.nan, math.inf, 2.0], 10) == "▁█"
    assert sparkline([-1.7e308, 1.7e308], 10) == "▁▁"
    assert sparkline([1.7e308] * 4, 2) == "▁▁"


@pytest.mark.parametrize("steps", [10, 100, 10_000])
def test_the_whole_run_is_shown_however_long_it_is(steps):
    picture = RunPicture("x")
    for step in range(1, steps + 1):
        picture.line(train_line(step, loss=float(step)))
        if step % 100 == 0:
            assert len(picture.points()) <= 2 * MOST_POINTS
    drawn = curve_of(picture, "training loss", width=66)
    assert drawn == "".join(sorted(drawn))
    assert drawn[0] + drawn[-1] == BLOCKS[0] + BLOCKS[-1]
    assert len(drawn) == min(steps, 19)  # half of the columns after the value


def test_a_spike_is_kept_where_it_counts():
    picture = RunPicture("x")
    for step in range(1, 5001):
        picture.line(train_line(step, grad_norm=1000.0 if step == 2500 else 1.0))
    assert curve_of(picture, "gradient norm").count("█") == 1


def test_repeated_steps_are_taken_once():
    picture = RunPicture("x")
    for step, loss in ((1, 5.0), (2, 4.0), (1, 100.0)):
        picture.line(train_line(step, loss=loss))
        picture.line(validation_line(step, bleu=loss))
    assert picture.points().columns()["loss"] == [5.0, 4.0]
    assert [*picture.scores["bleu"]] == [1, 2]
