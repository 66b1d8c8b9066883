"""Export a metrics file as Parquet: one file per table, with typed columns.

pyarrow is an extra (`parquet`) and is imported on the first export.
"""

from pathlib import Path
from typing import Any

from trainer.record.metrics_lines import Line
from transloom.observe.exports.tables import TABLES, Kind, Row, Table, rows_of

# Maximum number of rows of a table in memory, which is also the number of rows of a row group.
ROWS_AT_ONCE = 20_000


class ParquetTables:
    """Writer of a record's lines to Parquet files in a folder.

    Raises:
        ImportError: pyarrow is not installed.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        self._arrow = pyarrow
        self._schemas = {table.name: _schema(pyarrow, table) for table in TABLES}
        self._writers = {
            name: parquet.ParquetWriter(folder / f"{name}.parquet", schema)
            for name, schema in self._schemas.items()
        }
        self._waiting: dict[str, list[Row]] = {table.name: [] for table in TABLES}
        self.rows = {table.name: 0 for table in TABLES}

    def add(self, line: Line) -> None:
        for table, row in rows_of(line):
            waiting = self._waiting[table.name]
            waiting.append(row)
            self.rows[table.name] += 1
            if len(waiting) >= ROWS_AT_ONCE:
                self._write(table)

    def close(self) -> None:
        """Write the remaining rows and finish each file."""
        for table in TABLES:
            if self._waiting[table.name]:
                self._write(table)
            self._writers[table.name].close()

    def _write(self, table: Table) -> None:
        schema, rows = self._schemas[table.name], self._waiting[table.name]
        columns = zip(*rows, strict=True)
        arrays = [
            self._arrow.array(_converted(kind, values), type=field.type)
            for kind, field, values in zip(table.columns.values(), schema, columns, strict=True)
        ]
        self._writers[table.name].write_batch(
            self._arrow.RecordBatch.from_arrays(arrays, schema=schema)
        )
        rows.clear()


def _converted(kind: Kind, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Convert large integers to float; pyarrow does not convert integers above 2⁵³ to double."""
    if kind != "large integer":
        return values
    return tuple(None if value is None else float(value) for value in values)


def _schema(pyarrow: Any, table: Table) -> Any:
    types: dict[Kind, Any] = {
        "integer": pyarrow.int64(),
        "large integer": pyarrow.float64(),
        "number": pyarrow.float64(),
        "text": pyarrow.string(),
        "JSON": pyarrow.string(),
        "integers": pyarrow.list_(pyarrow.int64()),
        "numbers by name": pyarrow.map_(pyarrow.string(), pyarrow.float64()),
        "truth": pyarrow.bool_(),
    }
    return pyarrow.schema([(name, types[kind]) for name, kind in table.columns.items()])
