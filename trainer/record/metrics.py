"""metrics.jsonl, the record of a run: one JSON object a line, see `trainer.record.records`.

The steps of step lines increase strictly, and so do those of validation lines. After a restart the
run repeats the steps since its last checkpoint. They are in the record already, so they are
compared with it instead of written again; a difference is recorded as an event, because it means
that the curve was not the same.
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
from trainer.record.line_reader import LineTail, NewText, lines_backwards, ranges_of
from trainer.record.records import (
    VERSION,
    Event,
    Line,
    ReplayMismatch,
    StepLine,
    TrainLine,
    ValidationLine,
    parse_line,
)

# Relative difference by rounding that losses of a repeated step may have when the shape (ranks,
# threads) has changed, unless numerics are exact.
REPLAY_TOLERANCE = 1e-5


class MetricsRecord:
    """Appends to metrics.jsonl; the one writer is rank 0."""

    def __init__(
        self,
        path: Path,
        resume_step: int,
        notice: Callable[[str], None] = lambda text: None,
        tolerance: float = REPLAY_TOLERANCE,
    ) -> None:
        """
        Args:
            resume_step: the step of the checkpoint that the run continues from, or 0.
            notice: is told when the disk is full, and when it no longer is.
            tolerance: the relative difference within which the loss of a repeated step is the same.
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
        """Whether the line repeats one that an earlier start of the ranks has recorded."""
        return _place(line) in self._recorded

    def append(self, line: Line) -> ReplayMismatch | None:
        """Record a line. A repeated line is not written again; if it differs, return an event."""
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
        """Write the record through to the disk, so that it survives a loss of power.

        Raises:
            CheckpointError: the disk is full or fails; no checkpoint may be ahead of the record.
        """
        self._file.sync()

    def close(self) -> None:
        """Write what is left, and release the file.

        Raises:
            TrainerError: the record's end is lost.
        """
        self._file.close()

    def _write(self, line: Line) -> None:
        self._file.append(line.to_json())
        self.last_step = max(self.last_step, line.step)


def read_metrics(path: Path) -> list[Line]:
    """The complete lines of a record; a torn last line is left out."""
    return list(read_backwards(path))[::-1]


def train_lines(path: Path) -> list[TrainLine]:
    """The lines of all steps that were applied, in order."""
    return [line for line in read_metrics(path) if isinstance(line, TrainLine)]


def lines_after(path: Path, step: int) -> list[Line]:
    """The lines after the line of a step, and so all later steps, in order.

    The time that it takes depends on the number of these lines, not on the record's length.
    """
    lines = takewhile(lambda line: not _is_by(step, line), read_backwards(path))
    return list(lines)[::-1]


def follow(path: Path, step: int, wait: Callable[[], bool]) -> Iterator[Line]:
    """Yield the lines after the line of a step, in order, while the record grows.

    Reading goes on after the last yielded step if the record is cut, replaced or missing for a
    while.

    Args:
        wait: blocks until there may be more lines, and returns True if they are the last ones.

    Raises:
        FileNotFoundError: there is no record at the beginning.
        TrainerError: a line does not belong to a record.
    """
    tail: LineTail | None = LineTail(path, _position_after(path, step))
    is_complete = False
    while True:
        tail = tail or _tail_after(path, step)
        new = tail.read() if tail else NewText()
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
    """Yield the complete lines of a record, last one first; none without a record."""
    if path.exists():
        for _, line in _lines_backwards(path):
            yield parsed(path, line)


def readable_lines(text: bytes) -> tuple[list[Line], int]:
    """Return the lines of a record that can be read, and the number of those that cannot."""
    texts = text.split(b"\n")[:-1]
    lines: list[Line] = []
    for line in texts:
        with suppress(ValidationError):
            lines.append(parse_line(line))
    return lines, len(texts) - len(lines)


def recorded_step(path: Path) -> int:
    """The step of a record's last line; 0 without a readable record: the ranks report that better.

    For those who watch a run from outside and only want to know whether it gets on.
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
    """Whether this is the line of a step, or of one before."""
    return isinstance(line, StepLine) and line.step <= step


def _place(line: StepLine | ValidationLine) -> tuple[bool, int]:
    """The place of a line, which no two lines of the record share, events apart."""
    return isinstance(line, StepLine), line.step


def parsed(path: Path, line: bytes) -> Line:
    """A line of a record.

    Raises:
        TrainerError: it is no such line; the message names the record.
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
            "or take the line out; the steps after the newest checkpoint are repeated anyway"
        ) from error


def _differences(
    before: StepLine | ValidationLine, after: StepLine | ValidationLine, tolerance: float
) -> dict[str, list[Any]]:
    """Fields that must be equal in a repeated step and are not, each as [before, after]."""
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
