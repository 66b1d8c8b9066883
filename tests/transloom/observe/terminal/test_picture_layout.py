"""Rows for a terminal of any size."""

import io

import pytest
from rich.cells import cell_len
from rich.text import Text

from cluster.terminal import Terminal
from transloom.observe.terminal.picture_layout import (
    LABEL,
    Block,
    Picture,
    cut,
    fitted,
    listed,
    row,
)

BLOCKS = [
    Block([("title", "")]),
    Block(listed("", ["a1", "a2", "a3"]), noun="ranks", has_gap=True),
    Block(listed("", ["b1", "b2"])),
    Block(listed("", ["s1", "s2"]), least=0),
]


def console_of(width=80, encoding="utf-8"):
    return Terminal(file=io.TextIOWrapper(io.BytesIO(), encoding), width=width)


def picture_of(blocks):
    return Picture(lambda console, width, height: fitted(blocks, console, width, height))


def lines_of(blocks, console, height=None):
    console.print(picture_of(blocks), crop=False, height=height)
    console.file.flush()
    return console.file.buffer.getvalue().decode(console.encoding).split("\n")[:-1]


def contents(text, width, most=9):
    """The rows of a text, without the column of the label."""
    rows = Block([("label", text)], most=most).rows(console_of(), LABEL + width)
    return [row.plain[LABEL:].rstrip() for row in rows]


@pytest.mark.parametrize(
    ("height", "expected"),
    [
        (None, ["title", "", "a1", "a2", "a3", "b1", "b2", "s1", "s2"]),
        (9, ["title", "", "a1", "a2", "a3", "b1", "b2", "s1", "s2"]),
        (8, ["title", "a1", "a2", "a3", "b1", "b2", "s1", "s2"]),
        (7, ["title", "a1", "a2", "a3", "b1", "b2", "s1"]),
        (6, ["title", "a1", "a2", "a3", "b1", "b2"]),
        (4, ["title", "a1", "… 2 more ranks", "b1"]),
        (2, ["title", "a1"]),
        (1, ["title"]),
        (0, []),
    ],
)
def test_the_least_important_is_left_out_first(height, expected):
    assert [line.strip() for line in lines_of(BLOCKS, console_of(), height)] == expected


@pytest.mark.parametrize("height", range(12))
def test_no_picture_is_higher_than_the_terminal(height):
    assert len(fitted(BLOCKS, console_of(), 80, height)) <= height


def test_a_terminal_keeps_a_row_for_the_cursor(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LINES", "5")
    console = Terminal(file=io.StringIO(), force_terminal=True)
    console.print(picture_of(BLOCKS))
    assert console.file.getvalue().count("\n") == 4


@pytest.mark.parametrize("text", ["a b " * 30, "漢字" * 40, "e\u0301" * 90, "x" * 100], ids=str)
@pytest.mark.parametrize("width", [1, 2, 7, 40, 80])
def test_no_row_is_wider_than_the_terminal(text, width):
    blocks = [Block([(text, "")]), Block([("label", text)], most=3)]
    assert max(map(cell_len, lines_of(blocks, console_of(width)))) <= width
    assert all(cell_len(line) <= max(width, 2) for line in contents(text, width))


def test_a_row_that_fits_is_left_alone():
    text = row(("a", "red"), "漢")
    assert cut(text.copy(), 3) == text
    assert cut(Text("abcdef"), 4).plain == "abc…"


def test_text_is_wrapped_between_words():
    assert contents("one two  three", 7) == ["one two", "three"]
    assert contents("", 7) == [""]


def test_a_text_that_is_too_long_ends_with_dots():
    assert contents("one two three four", 9, most=2) == ["one two", "three fo…"]
    assert contents("漢字" * 10, 6, most=2) == ["漢字漢", "字漢 …"]


def test_dots_in_ascii_fit_the_terminal():
    lines = lines_of([Block([("a", "x" * 100)], most=1)], console_of(40, "ascii"))
    assert [len(line) for line in lines] == [40]
    assert lines[0].endswith("x...")


def test_the_label_is_in_the_first_row_alone():
    rows = Block(listed("why", ["one two", "three"])).rows(console_of(), LABEL + 5)
    assert [text.plain.split() for text in rows] == [["why", "one"], ["two"], ["three"]]
