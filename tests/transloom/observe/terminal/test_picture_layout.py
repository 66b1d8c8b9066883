"""Rows for a terminal of any size."""

import pytest
from rich.cells import cell_len

from transloom.observe.terminal.picture_layout import Block, cut, fitted, gap, wrapped


def rows(*texts):
    return [[(text, "")] for text in texts]


def texts(found):
    return ["".join(text for text, _ in row) for row in found]


BLOCKS = [
    Block(rows("title"), importance=0),
    gap(),
    Block(rows("a1", "a2", "a3"), importance=2, noun="ranks"),
    Block(rows("s1", "s2"), importance=3, least=0, is_whole=True),
    Block(rows("b1", "b2"), importance=1),
]


@pytest.mark.parametrize(
    ("height", "expected"),
    [
        (None, ["title", "", "a1", "a2", "a3", "s1", "s2", "b1", "b2"]),
        (9, ["title", "", "a1", "a2", "a3", "s1", "s2", "b1", "b2"]),
        (8, ["title", "a1", "a2", "a3", "s1", "s2", "b1", "b2"]),
        (5, ["title", "a1", "… 2 more ranks", "b1", "b2"]),
        (3, ["title", "a1", "b1"]),
        (2, ["title", "b1"]),
        (1, ["title"]),
        (0, []),
    ],
)
def test_the_least_important_is_left_out_first(height, expected):
    assert [text.strip() for text in texts(fitted(BLOCKS, height))] == expected


@pytest.mark.parametrize("height", range(12))
def test_no_picture_is_higher_than_the_terminal(height):
    assert len(fitted(BLOCKS, height)) <= height


@pytest.mark.parametrize("text", ["a b " * 30, "漢字" * 40, "e\u0301" * 90, "x" * 100], ids=str)
@pytest.mark.parametrize("width", [1, 2, 7, 40, 80])
def test_no_row_is_wider_than_the_terminal(text, width):
    for row in texts([cut([("label ", "bold"), (text, "")], width)]):
        assert cell_len(row) <= width
    assert all(cell_len(line) <= max(width, 2) for line in wrapped(text, width))


def test_a_row_that_fits_is_left_alone():
    row = [("a", "red"), ("漢", "")]
    assert cut(row, 3) == row
    assert texts([cut([("abcdef", "")], 4)]) == ["abc…"]


def test_text_is_wrapped_between_words():
    assert wrapped("one two  three", 7) == ["one two", "three"]
    assert wrapped("", 7) == [""]
