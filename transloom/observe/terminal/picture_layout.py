"""Fit the rows of a picture to a terminal: rich cuts them to its width, blocks to its height.

A picture is a list of blocks from top to bottom. If the height is too small for all rows, blocks
shrink to their minimum, starting with the least important one. If that is not enough, the least
important blocks are left out. The last row of a block that has shrunk reports the number of missing
rows. rich's `Layout` has no such order, and fills the whole height, so it does not replace this.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import rich.console
import rich.text
from rich.console import ConsoleOptions, RenderResult
from rich.segment import Segment

from cluster.terminal import Terminal, shown
from foundation.untrusted_text import visible_line

LABEL = 16  # width of the first column in cells of the terminal
DONE, TO_DO = "━", "─"  # the two parts of a progress bar
# Replacements for a terminal whose encoding lacks these characters.
ASCII = str.maketrans(dict(zip("▁▂▃▄▅▆▇█━─–", "_.-:=+*##--", strict=True)) | {"…": "..."})

Row = rich.text.Text  # made by `shown`, which makes control characters visible


@dataclass(frozen=True)
class Block:
    """Rows that stay together in a picture.

    Attributes:
        label: text in the first column of the first row; None if the texts fill all columns.
        texts: contents of the block, each of which starts a row.
        importance: 0 is the most important; blocks with a higher number are left out earlier.
        style: style of the texts that are strings.
        most: number of rows to which a text is wrapped; a longer text is cut and ends with dots.
        least: number of rows to which the block shrinks before other blocks are left out.
        is_whole: True if either all rows of the block are shown or none; `least` is then 0.
        noun: plural noun for the rows, which follows the number of missing rows.
    """

    label: str | None
    texts: Sequence[Row | str]
    importance: int
    style: str = ""
    most: int = 1
    least: int = 1
    is_whole: bool = False
    noun: str = ""

    def rows(self, console: Terminal, width: int) -> list[Row]:
        """Return the rows for a terminal of `width` cells; only rows without label may be wider."""
        texts = [row((text, self.style)) if isinstance(text, str) else text for text in self.texts]
        if self.label is None:
            return texts
        lines = [line for text in texts for line in self._wrapped(text, console, width - LABEL)]
        return [labelled("" if n else self.label, line) for n, line in enumerate(lines)]

    def _wrapped(self, text: Row, console: Terminal, width: int) -> list[Row]:
        lines = list(text.wrap(console, max(1, width)))
        if len(lines) > self.most:
            lines[self.most - 1 :] = [cut(shown().join(lines[self.most - 1 :]), max(1, width))]
        return lines


def gap() -> Block:
    """Return a block with an empty row, which is shown only if space is left."""
    return Block(None, [""], importance=15, least=0)


def row(*parts: str | tuple[str, str]) -> Row:
    """Return one row from untrusted strings, and from pairs of string and style."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return shown(*((visible_line(text), style) for text, style in pairs))


def labelled(label: str, text: Row) -> Row:
    """Return a row with a label in the first column, followed by the text."""
    first = row((label, "bold"))
    first.truncate(LABEL, pad=True)
    return first.append_text(text)


def cut(text: Row, width: int) -> Row:
    """Cut a text to a width in cells, with dots at the end."""
    text.truncate(width, overflow="ellipsis")
    return text


def width_of(options: ConsoleOptions) -> int:
    """Return the width for which rows are made; three ASCII dots need two cells more than `…`."""
    return max(1, options.max_width - 2) if options.ascii_only else options.max_width


def fitted(blocks: Sequence[Block], console: Terminal, height: int | None) -> list[Row]:
    """Return at most `height` rows to show; None as the height returns all rows."""
    rows = [block.rows(console, width_of(console.options)) for block in blocks]
    if height is None:
        return [text for texts in rows for text in texts]
    order = sorted(range(len(blocks)), key=lambda n: blocks[n].importance)
    given, left = [0] * len(blocks), height
    for n in order:
        given[n] = min(blocks[n].least, len(rows[n]), left)
        left -= given[n]
    for n in order:
        more = len(rows[n]) - given[n]
        if blocks[n].is_whole and more > left:
            continue
        given[n] += min(more, left)
        left -= min(more, left)
    result: list[Row] = []
    for n, block in enumerate(blocks):
        result += _first(rows[n], given[n], block.noun)
    while result and not result[-1]:
        result.pop()
    return result


def _first(rows: list[Row], most: int, noun: str) -> list[Row]:
    """Return the first `most` rows of a block; the last may report the number of missing rows."""
    missing = len(rows) - most
    if not missing or not noun or most < 2:
        return rows[:most]
    return [*rows[: most - 1], row((f"  … {missing + 1} more {noun}", "dim"))]


class Picture:
    """Rows for a terminal, without colours or Unicode if it supports none."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows

    def __rich_console__(
        self, console: rich.console.Console, options: ConsoleOptions
    ) -> RenderResult:
        """Cut rows that are too wide, and replace characters that the encoding lacks."""
        for text in self._rows:
            text.rstrip()
            cut(text, width_of(options))
            for segment in text.render(console):
                content = segment.text.translate(ASCII) if options.ascii_only else segment.text
                yield Segment(content, segment.style)
            yield Segment.line()
