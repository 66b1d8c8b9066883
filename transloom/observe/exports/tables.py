"""Convert the lines of a metrics file to rows of tables, for CSV and Parquet.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from foundation.file_model import Count
from trainer.record.metrics_lines import (
    Event,
    FlopCount,
    Line,
    SkippedLine,
    SlowRankState,
    TrainLine,
    ValidationLine,
)

Kind = Literal[
    "integer", "large integer", "number", "text", "integers", "numbers by name", "truth", "JSON"
]
Row = list[Any]

_KINDS: dict[Any, Kind] = {
    int: "integer",
    Count: "integer",
    FlopCount: "large integer",  # may need more than 64 bits
    float: "number",
    str: "text",
    list[Count]: "integers",
    dict[str, float]: "numbers by name",
    list[SlowRankState]: "JSON",  # as text
}
_OF_EVERY_LINE = ("version", "kind")  # not exported, because they are equal in all rows of a table


@dataclass(frozen=True)
class Table:
    """Name and columns of a table.

    Attributes:
        columns: the kind of each column's values; any value may be missing (None).
    """

    name: str
    columns: dict[str, Kind]


def _table(name: str, line: type[TrainLine] | type[SkippedLine]) -> Table:
    fields = line.model_fields.items()
    return Table(name, {key: _kind(f) for key, f in fields if key not in _OF_EVERY_LINE})


def _kind(field: FieldInfo) -> Kind:
    """Return the kind of a field's values; a field `float | None` has the kind of `float`."""
    if get_origin(field.annotation) is Literal:
        return "text"
    types = [field.annotation, *get_args(field.annotation)]
    return next(_KINDS[type_] for type_ in types if type_ in _KINDS)


TRAIN = _table("train", TrainLine)
SKIPPED = _table("skipped", SkippedLine)
VALIDATIONS = Table(
    "validations",
    {
        "step": "integer",
        "seconds": "number",
        "score": "text",
        "value": "number",
        "more_is_better": "truth",
        "decoding": "text",
    },
)
SAMPLES = Table(
    "samples",
    {
        "step": "integer",
        "number": "integer",
        "source": "text",
        "reference": "text",
        "translation": "text",
    },
)
EVENTS = Table("events", {"step": "integer", "event": "text", "details": "text"})
TABLES = (TRAIN, SKIPPED, VALIDATIONS, SAMPLES, EVENTS)


def rows_of(line: Line) -> Iterator[tuple[Table, Row]]:
    """Yield the rows that a line of the metrics file adds, each with its table."""
    if isinstance(line, (TrainLine, SkippedLine)):
        table = TRAIN if isinstance(line, TrainLine) else SKIPPED
        yield table, [_value(getattr(line, name), kind) for name, kind in table.columns.items()]
    elif isinstance(line, ValidationLine):
        for name, score in line.scores.items():
            row = [line.step, line.seconds, name, score.value, score.more_is_better, score.decoding]
            yield VALIDATIONS, row
        for number, sample in enumerate(line.samples, 1):
            yield SAMPLES, [line.step, number, sample.source, sample.reference, sample.translation]
    else:
        yield EVENTS, [line.step, line.event, details_of(line)]


def _value(value: Any, kind: Kind) -> Any:
    if kind != "JSON" or value is None:
        return value
    return json.dumps([part.model_dump(exclude_none=True) for part in value], ensure_ascii=False)


def details_of(event: Event) -> str:
    """Return the details of an event as JSON."""
    return json.dumps(event.details, ensure_ascii=False)


class CsvTables:
    """Writer of a record's lines as CSV: one UTF-8 file per table, with a header line.

    Numbers are written with all their digits, so that reading them gives exactly the same numbers.
    A missing value is an empty cell. Several values in one cell are written as JSON.
    """

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
        """Write buffered rows and close the files."""
        self._files.close()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
