"""Quick inspection of a run's checkpoints.

It reads each header, and compares the file sizes in the header with the actual sizes. It does not
prove that every byte is unchanged. For that, `transloom checkpoints verify` reads and hashes all
files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from foundation.file_model import Count, FileModel
from trainer.checkpoints.folder_names import STEP, folder_name, list_checkpoints, step_of
from trainer.checkpoints.format import HEADER, CheckpointHeader, read_header
from trainer.errors import CheckpointError, CheckpointFormatError
from trainer.scores import Scores

SET_ASIDE = f"damaged-{STEP}"
# Number of the newest checkpoints whose headers are read. For older checkpoints, only step and time
# are known.
HEADERS_READ = 10


class CheckpointStatus(FileModel):
    """Condition of a checkpoint, judged by its header and file sizes.

    Attributes:
        time: time of completion, in seconds since the epoch by the file server's clock.
        bytes: total size of its files, according to its header.
        problem: description of the defect, or None if none was found.
    """

    step: int
    time: float
    bytes: int = 0
    problem: str | None = None


class CheckpointRow(FileModel):
    """Summary of a checkpoint from its folder and header; its state files are not read.

    If the header was not read or is unreadable, `bytes` is None and there are no scores.
    """

    step: Count
    state: Literal["complete", "writing", "damaged"]
    bytes: Count | None = None
    time: float | None = None
    scores: Scores = Field(default_factory=dict)


class CheckpointFolder:
    """Repeated inspection of the checkpoints in a folder; caches each header."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # By checkpoint: the header's modification time in ns, and the header or the problem with
        # it.
        self._headers: dict[Path, tuple[int, CheckpointHeader | str]] = {}

    def newest(self, most: int) -> list[CheckpointStatus]:
        """Return up to `most` of the newest checkpoints, newest first, including those set aside.

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
    """Return the checkpoints of a folder, oldest first, and the newest readable header.

    Checkpoints that are still being written come last. The header is None if no header can be read.

    Args:
        folder: the run's directory of checkpoints.
        paths: the complete checkpoints, oldest first.
    """
    newest: CheckpointHeader | None = None
    rows = []
    for at, path in enumerate(paths):
        row = CheckpointRow(
            step=step_of(path), state="complete", time=modified_seconds(path / HEADER)
        )
        if at >= len(paths) - HEADERS_READ:
            try:
                header = newest = read_header(path)
                written = sum(file.bytes for file in header.files)
                row = row.model_copy(update={"bytes": written, "scores": header.scores})
            except CheckpointFormatError:
                pass  # the checkpoint is complete, but another version wrote it
            except CheckpointError:
                row = row.model_copy(update={"state": "damaged"})
        rows.append(row)
    return rows + _being_written(folder, {row.step for row in rows}), newest


def _being_written(folder: Path, complete: set[int]) -> list[CheckpointRow]:
    """Return the checkpoints that ranks are writing; see `commit.partial_folder`."""
    found: dict[int, float | None] = {}
    for partial in sorted(folder.glob(f".work-*/{folder_name(0)[:5]}*")):
        step = partial.name.split("-")[1]
        if step.isdecimal() and int(step) not in complete:
            found[int(step)] = modified_seconds(partial)
    return [CheckpointRow(step=at, state="writing", time=time) for at, time in found.items()]


def _wrong_size(path: Path, header: CheckpointHeader) -> str | None:
    for file in header.files:
        try:
            found = (path / file.name).stat().st_size
        except OSError as error:
            return f"{file.name}: {error.strerror}"
        if found != file.bytes:
            return f"{file.name} has {found:,} bytes, but {HEADER} says {file.bytes:,}"
    return None


def _aside(path: Path) -> int | None:
    """Return the step of a checkpoint that was set aside, or None if the name has no number."""
    number = path.name.removeprefix(SET_ASIDE)
    return int(number) if number.isdecimal() else None


def _changed(path: Path) -> int:
    """Return the modification time in ns since the epoch, or 0 if there is no such file."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def modified_seconds(path: Path) -> float | None:
    """Return the modification time in seconds since the epoch, or None if there is no such file."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None
