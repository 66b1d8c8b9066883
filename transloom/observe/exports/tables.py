"""Write the lines of a metrics file as tables in CSV.

    train         one row per applied step
    skipped       one row per skipped step
    validations   one row per score of a validation
    samples       one row per sample translation of a validation
    events        one row per event, with its details as JSON

The columns of `train` and `skipped` are all fields of their lines in
`trainer.record.metrics_lines`, except `version` and `kind`.
"""

import csv
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from trainer.record.metrics_lines import Event, Line, SkippedLine, TrainLine, ValidationLine

_OF_EVERY_LINE = ("version", "kind")  # not exported, because they are equal in all rows of a table


def _columns(line: type[TrainLine] | type[SkippedLine]) -> tuple[str, ...]:
    return tuple(name for name in line.model_fields if name not in _OF_EVERY_LINE)


# Columns of each table. Any value may be missing (None).
TABLES = {
    "train": _columns(TrainLine),
    "skipped": _columns(SkippedLine),
    "validations": ("step", "seconds", "score", "value", "more_is_better", "decoding"),
    "samples": ("step", "number", "source", "reference", "translation"),
    "events": ("step", "event", "details"),
}


def rows_of(line: Line) -> Iterator[tuple[str, list[Any]]]:
    """Yield the rows that a line of the metrics file adds, each with the name of its table."""
    if isinstance(line, (TrainLine, SkippedLine)):
        yield line.kind, [getattr(line, name) for name in TABLES[line.kind]]
    elif isinstance(line, ValidationLine):
        for name, score in line.scores.items():
            row = [line.step, line.seconds, name, score.value, score.more_is_better, score.decoding]
            yield "validations", row
        for number, sample in enumerate(line.samples, 1):
            yield (
                "samples",
                [line.step, number, sample.source, sample.reference, sample.translation],
            )
    else:
        yield "events", [line.step, line.event, details_of(line)]


def details_of(event: Event) -> str:
    """Return the details of an event as JSON."""
    return _json(event.details)


class CsvTables:
    """Writer of a record's lines as CSV: one UTF-8 file per table, with a header line.

    Numbers are written with all their digits, so that reading them gives exactly the same numbers.
    A missing value is an empty cell. Several values in one cell are written as JSON.
    """

    def __init__(self, folder: Path) -> None:
        self._files = ExitStack()
        self._writers = {}
        self.rows = dict.fromkeys(TABLES, 0)
        for table, columns in TABLES.items():
            file = (folder / f"{table}.csv").open("w", encoding="utf-8", newline="")
            self._files.enter_context(file)
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            self._writers[table] = writer

    def add(self, line: Line) -> None:
        for table, row in rows_of(line):
            self._writers[table].writerow([_cell(value) for value in row])
            self.rows[table] += 1

    def close(self) -> None:
        """Write buffered rows and close the files."""
        self._files.close()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _json(value) if isinstance(value, (list, dict)) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(part: BaseModel) -> dict[str, Any]:
    """Return a part of a line, such as a slow rank, as JSON can represent it."""
    return part.model_dump(exclude_none=True)
