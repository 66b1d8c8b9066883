"""Print results of commands: as a table in a terminal, as one line per row elsewhere.

Values that a person copies (an id, a path, a field's name) are never cut or split, even in a narrow
terminal. Other columns fold instead. A row that is still too wide continues on the next line.
"""

from dataclasses import dataclass

import rich.console
from rich.cells import cell_len
from rich.console import ConsoleOptions, RenderResult
from rich.table import Table

from foundation.terminal import presentable, shown

# Upper limit of the minimum width of a column that may fold, in cells. The minimum is otherwise the
# width of the column's longest word.
LONGEST_WORD = 20
SPACES_BETWEEN = 2  # rich's padding of a cell
# Styles of the states of a run; other states have no style.
STATE_STYLES = {"training": "green", "failed": "red", "damaged": "red", "abandoned": "yellow"}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        copied: True if a person may copy the column's values, which must then not be cut or split.
        shown: maximum number of characters of a value in a terminal; None shows all. Output to
            files and pipes always has complete values.
    """

    heading: str
    copied: bool = False
    shown: int | None = None


class AnswerTable:
    """Table with headings, whose cells are text."""

    def __init__(self, *columns: Column | str, caption: str = "") -> None:
        self._columns = [c if isinstance(c, Column) else Column(c) for c in columns]
        self._rows: list[list[str]] = []
        self._styles: list[str] = []
        self._caption = caption

    def add(self, *cells: str, style: str = "") -> None:
        assert len(cells) == len(self._columns), cells
        self._rows.append([presentable(cell) for cell in cells])
        self._styles.append(style)

    def plain(self) -> str:
        """Return a line with the headings, then one line for each row; tabs separate the cells."""
        headings = [column.heading for column in self._columns]
        lines = [[" ".join(cell.split()) for cell in row] for row in [headings, *self._rows]]
        return "\n".join("\t".join(line) for line in lines)

    def __rich_console__(
        self, console: rich.console.Console, options: ConsoleOptions
    ) -> RenderResult:
        """Lay the table out when a console prints it."""
        yield self.laid_out(options.max_width)

    def laid_out(self, width: int) -> Table:
        """Return the table for a terminal of `width` cells; print the result without cropping."""
        rows = [
            [cell[: column.shown] for cell, column in zip(row, self._columns, strict=True)]
            for row in self._rows
        ]
        table = Table(box=None, caption=self._caption or None)
        needed = 0
        for index, column in enumerate(self._columns):
            cells = [column.heading, *(row[index] for row in rows)]
            longest = max(map(cell_len, cells))
            word = max(cell_len(word) for cell in cells for word in cell.split() or [""])
            least = longest if column.copied else min(word, LONGEST_WORD)
            needed += least + SPACES_BETWEEN
            table.add_column(
                column.heading, overflow="fold", no_wrap=column.copied, min_width=least
            )
        for row, style in zip(rows, self._styles, strict=True):
            table.add_row(*map(shown, row), style=style)
        if needed > width:
            table.width = needed
        return table
