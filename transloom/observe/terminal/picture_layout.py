"""Fit the rows of a picture to a terminal: rich cuts them to its width, blocks to its height.

A picture is a list of blocks from top to bottom, and a block a list of rows. Both have the most
important ones first. In a small terminal, each block keeps its first rows, and the first blocks get
the space that is left. The last row of a block may report the number of missing rows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import rich.console
import rich.text
from rich.console import ConsoleOptions, RenderResult

from cluster.terminal import shown
from foundation.untrusted_text import visible_line

LABEL = 16  # width of the first column in cells of the terminal
DONE, TO_DO = "━", "─"  # the two parts of a progress bar
# Replacements for a terminal whose encoding lacks these characters.
ASCII = str.maketrans(dict(zip("▁▂▃▄▅▆▇█━─–", "_.-:=+*##--", strict=True)) | {"…": "..."})

Row = rich.text.Text  # made by `shown`, which makes control characters visible


@dataclass(frozen=True)
class Block:
    """Rows about one subject, the most important ones first.

    Attributes:
        texts: pairs of a label and a text, each of which starts a row.
        least: number of rows that the block keeps in a small terminal.
        most: number of rows to which a text is wrapped; a longer text is cut and ends with dots.
        style: style of the texts that are strings.
        noun: plural noun for the rows, whose missing number the last row reports; "" for no report.
        has_gap: True if an empty row precedes the block where there is space.
    """

    texts: Sequence[tuple[str, Row | str]]
    least: int = 1
    most: int = 2
    style: str = ""
    noun: str = ""
    has_gap: bool = False

    def rows(self, console: rich.console.Console, width: int) -> list[Row]:
        """Return the rows for a terminal of `width` cells."""
        room = max(1, width - LABEL)
        result = []
        for label, text in self.texts:
            content = row((text, self.style)) if isinstance(text, str) else text
            lines = list(content.wrap(console, room))
            if len(lines) > self.most:
                lines[self.most - 1 :] = [cut(shown().join(lines[self.most - 1 :]), room)]
            result += [labelled("" if n else label, line) for n, line in enumerate(lines)]
        return result


def row(*parts: str | tuple[str, str]) -> Row:
    """Return one row from untrusted strings, and from pairs of string and style."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return shown(*((visible_line(text), style) for text, style in pairs))


def listed(label: str, texts: Iterable[Row | str]) -> list[tuple[str, Row | str]]:
    """Return texts for a block, with a label for the first one."""
    return [("" if n else label, text) for n, text in enumerate(texts)]


def labelled(label: str, text: Row) -> Row:
    """Return a row with a label in the first column, followed by the text."""
    first = row((label, "bold"))
    first.truncate(LABEL, pad=True)
    return first.append_text(text)


def cut(text: Row, width: int) -> Row:
    """Cut a text to a width in cells, with dots at the end."""
    text.truncate(width, overflow="ellipsis")
    return text


def fitted(
    blocks: Sequence[Block], console: rich.console.Console, width: int, height: int | None
) -> list[Row]:
    """Return at most `height` rows to show; None as the height returns all rows."""
    rows = [block.rows(console, width) for block in blocks]
    left = sum(map(len, rows)) + len(blocks) if height is None else height
    sizes = []
    for block, texts in zip(blocks, rows, strict=True):
        sizes.append(min(block.least, len(texts), left))
        left -= sizes[-1]
    for n, texts in enumerate(rows):
        more = min(len(texts) - sizes[n], left)
        sizes[n] += more
        left -= more
    result: list[Row] = []
    for block, texts, size in zip(blocks, rows, sizes, strict=True):
        if block.has_gap and size and left:
            result.append(row())
            left -= 1
        missing = len(texts) - size
        if missing and size > 1 and block.noun:
            texts[size - 1 :] = [row((f"  … {missing + 1} more {block.noun}", "dim"))]
        result += texts[:size]
    return result


class Picture:
    """Rows that fit a terminal, without colours or Unicode if it supports none."""

    def __init__(
        self, rows_for: Callable[[rich.console.Console, int, int | None], Iterable[Row]]
    ) -> None:
        """Create a picture.

        Args:
            rows_for: returns the rows for a console, a width, and a height that is None in a pipe.
        """
        self._rows_for = rows_for

    def __rich_console__(
        self, console: rich.console.Console, options: ConsoleOptions
    ) -> RenderResult:
        """Cut rows that are too wide, and replace characters that the encoding lacks."""
        # Three ASCII dots need two cells more than `…`.
        width = max(1, options.max_width - 2) if options.ascii_only else options.max_width
        height = options.height
        if height is None and console.is_terminal:  # the cursor needs the row below the picture
            height = options.size.height - 1
        for text in self._rows_for(console, width, height):
            text.rstrip()
            cut(text, width)
            if options.ascii_only:
                text.plain = text.plain.translate(ASCII)
            yield from text.render(console, end="\n")
