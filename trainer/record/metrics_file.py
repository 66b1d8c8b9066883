"""Record of a run, metrics.jsonl: one JSON object a line, see `trainer.record.metrics_lines`.

The steps of step lines increase strictly, and so do those of validation lines. After a restart the
run repeats the steps since its last checkpoint. The record has them already, so they are compared
with it instead of written again. A difference is recorded as an event, because it means that the
curve was not the same.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer.errors import TrainerError
from trainer.record.line_file import LineFile
from trainer.record.line_reader import LineTail, TailRead, lines_backwards, ranges_of
from trainer.record.metrics_lines import (
    VERSION,
    Event,
    Line,
    ReplayMismatch,
    StepLine,
    TrainLine,
    ValidationLine,
    parse_line,
)

# Relative difference by rounding that is allowed in losses of a repeated step if the shape (ranks,
# threads) has changed, unless numerics are exact.
REPLAY_TOLERANCE = 1e-5


class MetricsFile:
    """Writer of metrics.jsonl; only rank 0 has one."""

    def __init__(
        self,
        path: Path,
        resume_step: int,
        notice: Callable[[str], None] = lambda text: None,
        tolerance: float = REPLAY_TOLERANCE,
    ) -> None:
        """Open the record and read its lines after the checkpoint.

        Args:
            path: the record, which is created if it is missing.
            resume_step: the step of the checkpoint that the run continues from, or 0.
            notice: receives a message when the disk is full, and when it no longer is.
            tolerance: the relative difference within which the losses of a repeated step count as
                equal.
        """
        self._tolerance = tolerance
        self._file = LineFile(path, notice)
        self._recorded: dict[tuple[bool, int], StepLine | ValidationLine] = {}
        self.last_step = resume_step
        for line in lines_after(path, resume_step):
            self.last_step = max(self.last_step, line.step)
            if not isinstance(line, Event):
                self._recorded[_place(line)] = line

    def has(self, line: StepLine) -> bool:
        """Return whether the line repeats one that an earlier start of the ranks has recorded."""
        return _place(line) in self._recorded

    def append(self, line: Line) -> ReplayMismatch | None:
        """Record a line; compare a repeated line instead, and return an event if it differs."""
        if isinstance(line, Event):
            self._write(line)
            return None
        before = self._recorded.pop(_place(line), None)
        if before is None:
            self._write(line)
            return None
        differences = _differences(before, line, self._tolerance)
        if not differences:
            return None
        mismatch = ReplayMismatch(step=self.last_step, replayed_step=line.step, fields=differences)
        self._write(mismatch)
        return mismatch

    def sync(self) -> None:
        """Sync the record to the disk, so that it survives a power loss.

        Raises:
            CheckpointError: the disk is full or fails; no checkpoint may be ahead of the record.
        """
        self._file.sync()

    def close(self) -> None:
        """Write the waiting lines, and release the file.

        Raises:
            TrainerError: the record's end is lost.
        """
        self._file.close()

    def _write(self, line: Line) -> None:
        self._file.append(line.to_json())
        self.last_step = max(self.last_step, line.step)


def read_metrics(path: Path) -> list[Line]:
    """Return the complete lines of a record; a torn last line is left out."""
    return list(read_backwards(path))[::-1]


def train_lines(path: Path) -> list[TrainLine]:
    """Return the lines of all applied steps, in order."""
    return [line for line in read_metrics(path) if isinstance(line, TrainLine)]


def lines_after(path: Path, step: int) -> list[Line]:
    """Return the lines after the line of a step, and so all later steps, in order.

    The time depends on the number of these lines, not on the record's length.
    """
    lines = takewhile(lambda line: not _is_by(step, line), read_backwards(path))
    return list(lines)[::-1]


def follow(path: Path, step: int, wait: Callable[[], bool]) -> Iterator[Line]:
    """Yield the lines after the line of a step, in order, while the record grows.

    If the record is cut, replaced or missing for a while, reading continues after the last yielded
    step.

    Args:
        path: the record.
        step: the step to start after.
        wait: blocks until there may be more lines, and returns True if they are the last ones.

    Raises:
        FileNotFoundError: there is no record at the start.
        TrainerError: a line does not belong to a record.
    """
    tail: LineTail | None = LineTail(path, _position_after(path, step))
    is_complete = False
    while True:
        tail = tail or _tail_after(path, step)
        new = tail.read() if tail else TailRead()
        if new.is_other:
            tail = None
            continue
        if new.has_long_line:
            raise TrainerError(f"{path} has a line at byte {new.position:,} that is too long")
        for text in new.content.split(b"\n")[:-1]:
            line = parsed(path, text)
            step = max(step, line.step) if isinstance(line, StepLine) else step
            yield line
        if not new.content:
            if is_complete:
                return
            is_complete = wait()


def _tail_after(path: Path, step: int) -> LineTail | None:
    """Return a reader of the lines after the line of a step; None while the record is missing."""
    try:
        return LineTail(path, _position_after(path, step))
    except FileNotFoundError:
        return None


def _position_after(path: Path, step: int) -> int:
    """Return the end of the line of a step, or of the last step before; 0 if there is none."""
    for start, line in _lines_backwards(path):
        if _is_by(step, parsed(path, line)):
            return start + len(line) + 1
    return 0


def read_backwards(path: Path) -> Iterator[Line]:
    """Yield the complete lines of a record, last one first; no lines if there is no record."""
    if path.exists():
        for _, line in _lines_backwards(path):
            yield parsed(path, line)


def readable_lines(text: bytes) -> tuple[list[Line], int]:
    """Return the readable lines of a record, and the number of unreadable ones."""
    texts = text.split(b"\n")[:-1]
    lines: list[Line] = []
    for line in texts:
        with suppress(ValidationError):
            lines.append(parse_line(line))
    return lines, len(texts) - len(lines)


def recorded_step(path: Path) -> int:
    """Return the step of a record's last line, or 0 if there is no readable record.

    It is for observers of a run that only need to know whether it makes progress. The ranks report
    a damaged record better.
    """
    try:
        return next((line.step for line in read_backwards(path)), 0)
    except (OSError, TrainerError):
        return 0


def _lines_backwards(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the complete lines of a record, last one first, with their positions."""
    with path.open("rb") as file:
        yield from lines_backwards(ranges_of(file), file.seek(0, os.SEEK_END))


def _is_by(step: int, line: Line) -> bool:
    """Return whether this is the line of a step, or of an earlier step."""
    return isinstance(line, StepLine) and line.step <= step


def _place(line: StepLine | ValidationLine) -> tuple[bool, int]:
    """Return the key of a line, which is unique in the record, apart from events."""
    return isinstance(line, StepLine), line.step


def parsed(path: Path, line: bytes) -> Line:
    """Parse a line of a record.

    Raises:
        TrainerError: the line is invalid; the message names the record.
    """
    try:
        return parse_line(line)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["loc"][-1:] == ("version",):
            raise TrainerError(
                f"{path} has a line of version {problem['input']!r}, this version reads up to "
                f"{VERSION}: use the version that wrote it"
            ) from error
        where = ".".join(map(str, problem["loc"]))
        raise TrainerError(
            f"{path} has a line that is not one of a record: {line[:60]!r} "
            f"({where + ': ' if where else ''}{problem['msg']}). Restore the record from a copy, "
            "or remove the line; the steps after the newest checkpoint are repeated anyway"
        ) from error


def _differences(
    before: StepLine | ValidationLine, after: StepLine | ValidationLine, tolerance: float
) -> dict[str, list[Any]]:
    """Return the fields that should be equal in a repeated step and differ, as [before, after]."""
    result: dict[str, list[Any]] = {}
    for field in ("kind", "data_digest", "target_tokens", "learning_rate"):
        values = [getattr(line, field, None) for line in (before, after)]
        if values[0] != values[1]:
            result[field] = values
    losses = [loss for line in (before, after) if (loss := _loss(line)) is not None]
    if len(losses) == 2 and not math.isclose(*losses, rel_tol=tolerance):
        result["loss"] = losses
    return result


def _loss(line: StepLine | ValidationLine) -> float | None:
    if isinstance(line, ValidationLine):
        return line.scores["loss"].value if "loss" in line.scores else None
    return line.loss if isinstance(line, TrainLine) else None
