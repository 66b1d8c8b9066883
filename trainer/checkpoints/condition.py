"""In what condition the checkpoints of a run are, at a glance.

A header is read, and the sizes of its files are compared with it. Whether every byte is as it was
written tells only their hash: `transloom checkpoints verify` reads them all.
"""

from pathlib import Path

from foundation.written import Written
from trainer.checkpoints.format import (
    HEADER,
    STEP,
    CheckpointHeader,
    list_checkpoints,
    read_header,
    step_of,
)
from trainer.errors import CheckpointError, CheckpointFormatError

SET_ASIDE = f"damaged-{STEP}"


class CheckpointCondition(Written):
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


class Checkpoints:
    """The checkpoints in a folder, looked at again and again; each header is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # What each header says, or what is wrong with it, with the time of its last change.
        self._headers: dict[Path, tuple[int, CheckpointHeader | str]] = {}

    def newest(self, most: int) -> list[CheckpointCondition]:
        """So many of the newest, newest first; those that were set aside as damaged count, too.

        Raises:
            OSError: the folder cannot be read.
        """
        aside = [(step, p) for p in self._folder.glob(f"{SET_ASIDE}*") if (step := _aside(p))]
        complete = [(step_of(path), path) for path in list_checkpoints(self._folder)]
        newest = sorted(aside + complete, reverse=True)[:most]
        self._headers = {path: self._header_of(path) for _, path in newest}
        return [self._condition(step, path) for step, path in newest]

    def _header_of(self, path: Path) -> tuple[int, CheckpointHeader | str]:
        changed = _changed(path / HEADER)
        if path in self._headers and self._headers[path][0] == changed:
            return self._headers[path]
        try:
            return changed, read_header(path)
        except (CheckpointError, CheckpointFormatError) as error:
            return changed, str(error)

    def _condition(self, step: int, path: Path) -> CheckpointCondition:
        changed, header = self._headers[path]
        seconds = (changed or _changed(path)) / 1e9
        if path.name.startswith(SET_ASIDE):
            return CheckpointCondition(step=step, time=seconds, problem="set aside as damaged")
        if isinstance(header, str):
            return CheckpointCondition(step=step, time=seconds, problem=header)
        return CheckpointCondition(
            step=step,
            time=seconds,
            bytes=sum(file.bytes for file in header.files),
            problem=_wrong_size(path, header),
        )


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
