"""Export a run's metrics file (its record) as tables in CSV, or as TensorBoard events.

    table         rows                                        tags in TensorBoard
    train         one per applied step                        train/loss, train/other_sums/NAME, …
    skipped       one per skipped step                        skipped/in_a_row, …; slots as text
    validations   one per score of a validation               validation/bleu, …
    samples       one per sample translation of a validation  validation/samples, as text
    events        one per event, with its details as JSON     event/NAME, as text

The columns of `train` and `skipped` are all fields of their lines in
`run_store.record.metrics_lines`, except `version` and `kind`.

The record is read line by line, so memory use does not grow with the record. The export is written
to a hidden folder next to the requested one, and renamed when it is complete. An incomplete export
is therefore never visible. A folder with other files than those of an export is never replaced.

Only this module imports tensorboard, an extra, on the first export.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

from data_pipeline.storage.regular_files import publish_folder
from foundation.folder_lock import work_folder
from foundation.optional_packages import install_command
from foundation.untrusted_text import visible
from run_store.errors import RunError
from run_store.folder import RunFolder
from run_store.record.metrics_file import parsed
from run_store.record.metrics_lines import Line, SkippedLine, TrainLine, ValidationLine

Format = Literal["tensorboard", "csv"]
Report = Callable[[int, int], None]
LINES_PER_REPORT = 1000
TABLES = {
    "train": [name for name in TrainLine.model_fields if name not in ("version", "kind")],
    "skipped": [name for name in SkippedLine.model_fields if name not in ("version", "kind")],
    "validations": ["step", "seconds", "score", "value", "more_is_better", "decoding"],
    "samples": ["step", "number", "source", "reference", "translation"],
    "events": ["step", "event", "details"],
}
_EXPORTED = re.compile(rf"(?:{'|'.join(TABLES)})\.csv|events\.out\.tfevents\..+")
# Head of the samples' table in Markdown.
SAMPLES = "source | reference | translation\n--- | --- | ---"
# Escapes the characters with which a text would end its cell or its row in a Markdown table.
_CELL = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": " "})


class Exported(NamedTuple):
    """Result of an export.

    Attributes:
        name: the run's name.
        last_step: the step of the last line; None if the record is empty.
        rows: number of rows by table; for TensorBoard, the number of events.
    """

    name: str
    last_step: int | None
    rows: dict[str, int]


def export_metrics(
    run: Path,
    to: Format,
    folder: Path,
    report: Report = lambda done, total: None,
    *,
    replace: bool = False,
) -> Exported:
    """Write the record of a run into a new folder, completely or not at all.

    Args:
        run: the run's folder.
        folder: the folder to create.
        report: called with the number of bytes read and the length of the record in bytes.
        replace: True to replace an existing export in that folder.

    Raises:
        RunMismatchError: the run's folder has no run.
        RunError: the folder exists, a line of the record is damaged, or a package is missing.
    """
    name, record, last_step = RunFolder(run).card().name, RunFolder(run).metrics, None
    _check_free(folder, replace)
    if not record.is_file():
        raise RunError(f"{run} has no {record.name} yet: train the run before you export it")
    with work_folder(folder) as work:
        new = work / "new"
        new.mkdir()
        with closing(CsvTables(new) if to == "csv" else TensorBoardEvents(new, record)) as writer:
            for line in _lines(record, report):
                writer.add(line)
                last_step = line.step
        _check_free(folder, replace)  # another process may have created it meanwhile
        publish_folder(new, folder, work / "former")
    return Exported(name, last_step, writer.rows)


def _check_free(folder: Path, replace: bool) -> None:
    is_folder = folder.is_dir() and not folder.is_symlink()
    names = [file.name for file in folder.iterdir()] if is_folder else []
    is_export = bool(names) and all(map(_EXPORTED.fullmatch, names))
    if os.path.lexists(folder) and not (is_export and replace):
        what = "already has an export" if is_export else "exists and is not an export of metrics"
        raise RunError(
            f"{folder} {what}. Name another folder with -o; --force replaces nothing but an export"
        )


def _lines(record: Path, report: Report = lambda done, total: None) -> Iterator[Line]:
    """Yield the complete lines of a record in order."""
    with record.open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # lines that the run writes later are not exported
        for number, line in enumerate(file):
            if file.tell() > size or not line.endswith(b"\n"):
                break
            if number % LINES_PER_REPORT == 0:
                report(file.tell(), size)
            yield parsed(record, line[:-1])
        report(size, size)


class CsvTables:
    """Writer of one UTF-8 file per table, with a header line.

    Numbers are written with all their digits, so that reading them gives exactly the same numbers.
    A missing value is an empty cell. Several values in one cell are written as JSON.
    """

    def __init__(self, folder: Path) -> None:
        self.rows = dict.fromkeys(TABLES, 0)
        self._files = ExitStack()
        self._writers = {}
        for table, columns in TABLES.items():
            file = (folder / f"{table}.csv").open("w", encoding="utf-8", newline="")
            self._files.enter_context(file)
            self._writers[table] = csv.DictWriter(file, columns, lineterminator="\n")
            self._writers[table].writeheader()

    def add(self, line: Line) -> None:
        for table, row in rows_of(line):
            self._writers[table].writerow({name: _cell(value) for name, value in row.items()})
            self.rows[table] += 1

    def close(self) -> None:
        """Write buffered rows and close the files."""
        self._files.close()


def rows_of(line: Line) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows that a line adds, each with its table; unknown values are left out."""
    row: dict[str, Any] = {"step": line.step}
    if isinstance(line, (TrainLine, SkippedLine)):
        yield line.kind, line.model_dump(exclude_none=True, exclude={"version", "kind"})
    elif isinstance(line, ValidationLine):
        for name, score in line.scores.items():
            yield "validations", row | {"seconds": line.seconds, "score": name, **dict(score)}
        for number, sample in enumerate(line.samples, 1):
            yield "samples", row | {"number": number, **dict(sample)}
    else:
        yield "events", row | {"event": line.event, "details": line.details}


class TensorBoardEvents:
    """Writer of a file with an event for each line, with numbers in double precision.

    Lines before the first training line have its time, because only training lines have one.

    Raises:
        RunError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, record: Path) -> None:
        try:
            from torch.utils.tensorboard import FileWriter
        except ImportError as error:
            raise RunError(
                "--to tensorboard needs tensorboard, which is not installed. Install it with "
                f"`{install_command('tensorboard')}`, or choose --to csv"
            ) from error
        self.rows = {"events": 0}
        self._writer = FileWriter(str(folder))
        times = (line.time for line in _lines(record) if isinstance(line, TrainLine))
        self._time = next(times, 0.0)
        self.close = self._writer.close

    def add(self, line: Line) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard.summary import scalar, text

        self._time = line.time if isinstance(line, TrainLine) else self._time
        summary = Summary()
        for tag, value in values_of(line):
            if isinstance(value, str):
                summary.MergeFrom(text(tag, value))
            else:
                summary.MergeFrom(scalar(tag, value, new_style=True, double_precision=True))
        self._writer.add_summary(summary, line.step, self._time)
        self.rows["events"] += 1


def values_of(line: Line) -> Iterator[tuple[str, float | str]]:
    """Yield the numbers and texts of a line, each with its TensorBoard tag."""
    if isinstance(line, ValidationLine):
        yield "validation/seconds", line.seconds
        for name, score in line.scores.items():
            if score.value is not None:
                yield f"validation/{name}", score.value
        if line.samples:
            cells = [[visible(text).translate(_CELL) for _, text in one] for one in line.samples]
            yield "validation/samples", "\n".join([SAMPLES, *map(" | ".join, cells)])
    elif isinstance(line, (TrainLine, SkippedLine)):
        for name, value in line.model_dump(exclude={"version", "step", "time"}).items():
            for entry, number in value.items() if isinstance(value, dict) else [("", value)]:
                if isinstance(number, (int, float)):
                    yield f"{line.kind}/{name}/{entry}".rstrip("/"), number
        if isinstance(line, SkippedLine):
            yield "skipped/slots", f"{line.cause}: slots {line.slots} on ranks {line.ranks}"
    else:
        yield f"event/{line.event}", visible(_cell(line.details))


def _cell(value: Any) -> Any:
    is_json = isinstance(value, (bool, list, dict))
    return json.dumps(value, ensure_ascii=False) if is_json else value
