"""Export a run's metrics file (its record) for other programs, for `transloom export-metrics`.

The record is read once, line by line, so memory use does not grow with the record. The export is
written to a hidden folder next to the requested one, and renamed when it is complete. An incomplete
export is therefore never visible. `export.json` describes the export. A folder without
`export.json` is not an export and is never replaced.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from data_pipeline.storage.durable import write_atomically
from data_pipeline.storage.regular_files import read_regular
from foundation.file_model import Count, FileModel
from foundation.optional_packages import install_command
from foundation.strict_json import SMALL, parse_object
from trainer.errors import TrainerError
from trainer.record.metrics_file import parsed
from trainer.record.metrics_lines import Line
from trainer.runs.folder import RunFolder
from transloom.observe.exports.tables import CsvTables
from transloom.observe.exports.tensorboard_events import TensorBoardEvents

Format = Literal["tensorboard", "csv"]
CARD = "export.json"
LINES_PER_REPORT = 1000


class Exported(FileModel):
    """Contents of export.json: the source and the files of an export.

    Attributes:
        run: the run's id.
        name: the run's name.
        format: one that can be written, or "parquet", which former versions wrote.
        bytes_read: length in bytes of the exported lines of the record.
        rows: number of rows by table; for TensorBoard, the number of events.
    """

    version: Literal[1] = 1
    run: str
    name: str
    format: Format | Literal["parquet"]
    first_step: Count | None
    last_step: Count | None
    bytes_read: Count
    rows: dict[str, Count]
    files: tuple[str, ...]


def export_metrics(
    run: Path,
    to: Format,
    folder: Path,
    report: Callable[[int, int], None] = lambda done, total: None,
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
        TrainerError: the folder exists, a line of the record is damaged, or a package is missing.
    """
    card = RunFolder(run).card()
    _check_free(folder, replace=replace)
    record = RunFolder(run).metrics
    if not record.is_file():
        raise TrainerError(f"{run} has no {record.name} yet: train the run before you export it")
    with unfinished_folder(folder) as unfinished:
        writer: CsvTables | TensorBoardEvents
        try:
            writer = CsvTables(unfinished) if to == "csv" else TensorBoardEvents(unfinished)
        except ImportError as error:
            raise TrainerError(
                f"--to {to} needs {to}, which is not installed. Install it with "
                f"`{install_command(to)}`, or choose --to csv, which needs no further package"
            ) from error
        first_step: int | None = None
        last_step: int | None = None
        bytes_read = 0
        with closing(writer):
            for position, line in _lines(record, report):
                writer.add(line)
                first_step = line.step if first_step is None else first_step
                last_step = line.step
                bytes_read = position
        exported = Exported(
            run=card.id,
            name=card.name,
            format=to,
            first_step=first_step,
            last_step=last_step,
            bytes_read=bytes_read,
            rows=writer.rows,
            files=tuple(sorted(path.name for path in unfinished.iterdir())),
        )
        write_atomically(unfinished / CARD, exported.model_dump_json(indent=1) + "\n")
        _put(unfinished, folder)
    return exported


@contextmanager
def unfinished_folder(folder: Path) -> Iterator[Path]:
    """Yield a new, hidden folder next to `folder`, which the caller renames when it is complete.

    The folder is removed unless it has been renamed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.unfinished")
    unfinished.mkdir()
    try:
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _lines(record: Path, report: Callable[[int, int], None]) -> Iterator[tuple[int, Line]]:
    """Yield the complete lines of a record in order, each with the byte position of its end."""
    position = 0
    with record.open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # lines that the run writes later are not exported
        for number, line in enumerate(file):
            if position + len(line) > size or not line.endswith(b"\n"):
                break
            position += len(line)
            yield position, parsed(record, line[:-1])
            if number % LINES_PER_REPORT == 0:
                report(position, size)
        report(size, size)


def _check_free(folder: Path, *, replace: bool) -> None:
    """Check that an export may be written to a folder.

    Raises:
        TrainerError: the folder exists, and `replace` is False or the folder is not an export.
    """
    if not os.path.lexists(folder):
        return
    former = _former(folder)
    if former is None:
        raise TrainerError(
            f"{folder} already exists and is not an export of metrics, so it is not replaced. "
            "Name another folder with -o"
        )
    if not replace:
        raise TrainerError(
            f"{folder} already has an export of {former.name} (run {former.run}), to step "
            f"{former.last_step}, as {former.format}. Name another folder with -o, or replace this "
            "export with --force"
        )


def _former(folder: Path) -> Exported | None:
    """Return the description of a folder's export.

    Return None if the folder has no valid `export.json`, or has files that it does not list.
    """
    if folder.is_symlink():
        return None
    try:
        card = parse_object(read_regular(folder / CARD, SMALL.bytes))
        former = Exported.model_validate(card)
        there = {path.name for path in folder.iterdir()}
    except (OSError, ValueError):
        return None
    return former if there <= {CARD, *former.files} else None


def _put(unfinished: Path, folder: Path) -> None:
    """Rename a complete export to its final name; then remove the export that it replaces.

    Raises:
        TrainerError: another process has created the folder in the meantime.
    """
    former = None
    if os.path.lexists(folder):
        _check_free(folder, replace=True)
        former = folder.with_name(f"{unfinished.name}.former")
        folder.rename(former)
    try:
        unfinished.rename(folder)
    except OSError as error:
        raise TrainerError(
            f"{folder} cannot be created: {error.strerror}. Name another folder with -o"
        ) from error
    if former is not None:
        shutil.rmtree(former)
