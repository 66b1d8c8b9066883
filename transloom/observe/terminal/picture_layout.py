"""Fit the rows of a picture to a terminal: cut rows to its width, and select rows for its height.

A picture is a list of blocks from top to bottom. If the height is too small for all rows, blocks
shrink to their minimum, starting with the least important one. If that is not enough, the least
important blocks are left out. The last row of a block that has shrunk reports the number of missing
rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Group

from cluster.terminal import shown
from foundation.untrusted_text import visible_line

LABEL = 16  # width of the first column in cells of the terminal

Row = list[tuple[str, str]]  # texts, each with its style


class Glyphs(NamedTuple):
    """Characters for drawing, which depend on the terminal's encoding."""

    levels: str
    done: str
    to_do: str
    dots: str
    dash: str


UNICODE = Glyphs("▁▂▃▄▅▆▇█", "━", "─", "…", "–")
ASCII = Glyphs("_.-:=+*#", "#", "-", "...", "-")


@dataclass(frozen=True)
class Block:
    """Rows that stay together in a picture.

    Attributes:
        importance: 0 is the most important; blocks with a higher number are left out earlier.
        least: number of rows to which the block shrinks before other blocks are left out.
        is_whole: True if either all rows of the block are shown or none; `least` is then 0.
        noun: plural noun for the rows, which follows the number of missing rows.
    """

    rows: list[Row]
    importance: int
    least: int = 1
    is_whole: bool = False
    noun: str = ""


def gap() -> Block:
    """Return a block with an empty row, which is shown only if space is left."""
    return Block([[]], importance=15, least=0)


def fitted(blocks: Sequence[Block], height: int | None, dots: str = UNICODE.dots) -> list[Row]:
    """Return at most `height` rows to show; None as the height returns all rows."""
    if height is None:
        return [row for block in blocks for row in block.rows]
    order = sorted(range(len(blocks)), key=lambda n: blocks[n].importance)
    given, left = [0] * len(blocks), height
    for n in order:
        given[n] = min(blocks[n].least, len(blocks[n].rows), left)
        left -= given[n]
    for n in order:
        more = len(blocks[n].rows) - given[n]
        if blocks[n].is_whole and more > left:
            continue
        given[n] += min(more, left)
        left -= min(more, left)
    rows: list[Row] = []
    for n, block in enumerate(blocks):
        rows += _first(block, given[n], dots)
    while rows and not rows[-1]:
        rows.pop()
    return rows


def _first(block: Block, most: int, dots: str) -> list[Row]:
    """Return the first `most` rows of a block; the last may report the number of missing rows."""
    missing = len(block.rows) - most
    if not missing or not block.noun or most < 2:
        return block.rows[:most]
    return [*block.rows[: most - 1], [("  " + f"{dots} {missing + 1} more {block.noun}", "dim")]]


def cut(row: Row, width: int, dots: str = UNICODE.dots) -> Row:
    """Cut a row to a width in cells, with dots at the end; return a row that fits unchanged."""
    if sum(cell_len(text) for text, _ in row) <= width:
        return row
    left, result = max(0, width - cell_len(dots)), []
    for text, style in row:
        cells = cell_len(text)
        if cells > left:
            result.append((set_cell_size(text, left).rstrip() + dots[:width], style))
            break
        result.append((text, style))
        left -= cells
    return result


def wrapped(text: str, width: int) -> list[str]:
    """Split a text into lines of at most `width` cells, between words where possible."""
    width = max(1, width)
    lines: list[str] = []
    for word in text.split():
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines += chop_cells(word, width)
    return lines or [""]


def labelled(label: str, *parts: str | tuple[str, str]) -> Row:
    """Return a row with a label in the first column, followed by the parts."""
    row: Row = [(padded(label, LABEL), "bold")]
    return row + [(part, "") if isinstance(part, str) else part for part in parts]


def hanging(label: str, text: str, width: int, most: int, style: str = "") -> list[Row]:
    """Return rows with a label in the first column, and a wrapped text to the right of the label.

    Args:
        width: the width of the rows in cells of the terminal.
        most: the maximum number of rows; a longer text is cut and ends with dots.
    """
    lines = wrapped(visible_line(text), width - LABEL)
    if len(lines) > most:
        room = max(0, width - LABEL - cell_len(UNICODE.dots))
        lines[most - 1] = set_cell_size(lines[most - 1], room).rstrip() + UNICODE.dots
    return [labelled(label if n == 0 else "", (line, style)) for n, line in enumerate(lines[:most])]


def padded(text: str, width: int) -> str:
    """Pad a text with spaces up to a width in cells; return a longer text unchanged."""
    return text + " " * max(0, width - cell_len(text))


def drawn(rows: Sequence[Row], width: int, dots: str = UNICODE.dots) -> Group:
    """Return the rows as text for a terminal; cut rows that are too wide, without wrapping."""
    lines = []
    for row in rows:
        line = shown(*cut(row, width, dots))
        line.no_wrap, line.overflow = True, "crop"
        lines.append(line)
    return Group(*lines)
