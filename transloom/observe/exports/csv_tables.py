"""The record as CSV: a file for each table, UTF-8, with a line of headings.

Numbers stand with all their digits, so what is read back is the same number. A missing value is an
empty cell; several values in one cell are JSON.
"""

import csv
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from trainer.record.records import Line
from transloom.observe.exports.tables import TABLES, rows_of


class CsvTables:
    """Writes lines of a record into files of a folder; a context."""

    def __init__(self, folder: Path) -> None:
        self._files = ExitStack()
        self._writers = {}
        self.rows = {table.name: 0 for table in TABLES}
        for table in TABLES:
            file = (folder / f"{table.name}.csv").open("w", encoding="utf-8", newline="")
            self._files.enter_context(file)
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.columns)
            self._writers[table.name] = writer

    def add(self, line: Line) -> None:
        for table, row in rows_of(line):
            self._writers[table.name].writerow([_cell(value) for value in row])
            self.rows[table.name] += 1

    def close(self) -> None:
        """Write what is left."""
        self._files.close()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
