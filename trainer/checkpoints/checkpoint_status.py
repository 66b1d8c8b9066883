"""In what condition the checkpoints of a run are, at a glance.

A header is read, and the sizes of its files are compared with it. Whether every byte is as it was
written tells only their hash: `transloom checkpoints verify` reads them all.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from foundation.file_model import Count, FileModel
from trainer.checkpoints.format import (
    HEADER,
    STEP,
    CheckpointHeader,
    folder_name,
    list_checkpoints,
    read_header,
    step_of,
)
from trainer.errors import CheckpointError, CheckpointFormatError
from trainer.scores import Scores

SET_ASIDE = f"damaged-{STEP}"
# Headers of the newest checkpoints are read; of older ones the step and the time are shown.
HEADERS_READ = 10


class CheckpointStatus(FileModel):
    """A checkpoint as it looks from outside.

    Attributes:
        time: when it was completed, in seconds since the epoch by the file server's clock.
        bytes: of its files, by its header.
        problem: what is wrong with it; None if nothing is to be seen.
    """

    step: int
    time: float
    bytes: int = 0
    problem: str | None = None


class CheckpointRow(FileModel):
    """A checkpoint as its folder shows it; its files are not read."""

    step: Count
    state: Literal["complete", "writing", "damaged"]
    bytes: Count | None = None
    time: float | None = None
    scores: Scores = Field(default_factory=dict)


class CheckpointFolder:
    """The checkpoints in a folder, looked at again and again; each header is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # What each header says, or what is wrong with it, with the time of its last change.
        self._headers: dict[Path, tuple[int, CheckpointHeader | str]] = {}

    def newest(self, most: int) -> list[CheckpointStatus]:
        """So many of the newest, newest first; those that were set aside as damaged count, too.

        Raises:
            OSError: the folder cannot be read.
        """
        aside = [(step, p) for p in self._folder.glob(f"{SET_ASIDE}*") if (step := _aside(p))]
        complete = [(step_of(path), path) for path in list_checkpoints(self._folder)]
        newest = sorted(aside + complete, reverse=True)[:most]
        self._headers = {path: self._header_of(path) for _, path in newest}
        return [self._status_of(step, path) for step, path in newest]

    def _header_of(self, path: Path) -> tuple[int, CheckpointHeader | str]:
        changed = _changed(path / HEADER)
        if path in self._headers and self._headers[path][0] == changed:
            return self._headers[path]
        try:
            return changed, read_header(path)
        except (CheckpointError, CheckpointFormatError) as error:
            return changed, str(error)

    def _status_of(self, step: int, path: Path) -> CheckpointStatus:
        changed, header = self._headers[path]
        seconds = (changed or _changed(path)) / 1e9
        if path.name.startswith(SET_ASIDE):
            return CheckpointStatus(step=step, time=seconds, problem="set aside as damaged")
        if isinstance(header, str):
            return CheckpointStatus(step=step, time=seconds, problem=header)
        return CheckpointStatus(
            step=step,
            time=seconds,
            bytes=sum(file.bytes for file in header.files),
            problem=_wrong_size(path, header),
        )


def checkpoint_rows(
    folder: Path, paths: Sequence[Path]
) -> tuple[list[CheckpointRow], CheckpointHeader | None]:
    """Return the checkpoints of a folder, oldest first, and the newest header that can be read.

    Args:
        paths: the complete checkpoints, oldest first.
    """
    newest: CheckpointHeader | None = None
    rows = []
    for at, path in enumerate(paths):
        row = CheckpointRow(step=step_of(path), state="complete", time=_seconds(path / HEADER))
        if at >= len(paths) - HEADERS_READ:
            try:
                header = newest = read_header(path)
                written = sum(file.bytes for file in header.files)
                row = row.model_copy(update={"bytes": written, "scores": header.scores})
            except CheckpointFormatError:
                pass  # whole, and of another version
            except CheckpointError:
                row = row.model_copy(update={"state": "damaged"})
        rows.append(row)
    return rows + _being_written(folder, {row.step for row in rows}), newest


def _being_written(folder: Path, complete: set[int]) -> list[CheckpointRow]:
    """Return the checkpoints of which ranks write their parts, see `commit.partial_folder`."""
    found: dict[int, float | None] = {}
    for partial in sorted(folder.glob(f".work-*/{folder_name(0)[:5]}*")):
        step = partial.name.split("-")[1]
        if step.isdecimal() and int(step) not in complete:
            found[int(step)] = _seconds(partial)
    return [CheckpointRow(step=at, state="writing", time=time) for at, time in found.items()]


def _wrong_size(path: Path, header: CheckpointHeader) -> str | None:
    for file in header.files:
        try:
            found = (path / file.name).stat().st_size
        except OSError as error:
            return f"{file.name}: {error.strerror}"
        if found != file.bytes:
            return f"{file.name} has {found:,} bytes, {HEADER} says {file.bytes:,}"
    return None


def _aside(path: Path) -> int | None:
    """The step of a checkpoint that was set aside."""
    number = path.name.removeprefix(SET_ASIDE)
    return int(number) if number.isdecimal() else None


def _changed(path: Path) -> int:
    """When it was changed last, in nanoseconds since the epoch; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _seconds(path: Path) -> float | None:
    """Return the time of the last change, in seconds since the epoch; None without a file."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None
