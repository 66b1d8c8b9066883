"""Metrics file of a run, metrics.jsonl: lines of JSON, see `run_store.record.metrics_lines`.

The step numbers of step lines increase strictly, and so do those of validation lines. After a
restart, the run repeats the steps since its last checkpoint. The metrics file may already have
lines of these steps, so each repeated line is compared with the existing line instead of being
written again. A difference is recorded as an event, because it means that the run did not repeat
its curve.
"""

import math
import os
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from run_store.errors import RunError
from run_store.record.curve_file import CurveFile
from run_store.record.line_file import LineFile
from run_store.record.line_reader import LineTail, TailRead, lines_backwards, ranges_of
from run_store.record.metrics_lines import (
    VERSION,
    Event,
    Line,
    ReplayMismatch,
    StepLine,
    TrainLine,
    ValidationLine,
    parse_line,
)

# Largest relative difference that rounding may cause between the losses of a repeated step, for
# example if the number of ranks or threads has changed. With exact numerics, no difference is
# allowed.
REPLAY_TOLERANCE = 1e-5


class MetricsFile:
    """Writer of metrics.jsonl, used only by rank 0."""

    def __init__(
        self,
        path: Path,
        resume_step: int,
        notice: Callable[[str], None] = lambda text: None,
        tolerance: float = REPLAY_TOLERANCE,
        curves: Path | None = None,
    ) -> None:
        """Open the metrics file and read its lines after the checkpoint.

        Args:
            path: the metrics file, which is created if it is missing.
            resume_step: the step of the checkpoint that the run continues from, or 0.
            notice: receives a message when the disk becomes full, and when the lines have been
                written.
            tolerance: the relative difference up to which the losses of a repeated step are
                considered equal.
            curves: the curve file, which receives the numbers of the lines; or None.
        """
        self._tolerance = tolerance
        self._file = LineFile(path, notice)
        self._curves = CurveFile(curves, path) if curves else None
        self._recorded: dict[tuple[bool, int], StepLine | ValidationLine] = {}
        self.last_step = resume_step
        for line in lines_after(path, resume_step):
            self.last_step = max(self.last_step, line.step)
            if not isinstance(line, Event):
                self._recorded[_place(line)] = line

    def has(self, line: StepLine) -> bool:
        """Return whether an earlier start of the ranks has already recorded a line of this step."""
        return _place(line) in self._recorded

    def append(self, line: Line) -> ReplayMismatch | None:
        """Write a line if it is new, or compare it with the existing line if it is repeated.

        If a repeated line differs from the existing line, the method writes an event and returns
        the event. Otherwise it returns None.
        """
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
        """Sync the metrics file to the disk, so that it survives a power loss.

        Raises:
            CheckpointError: the disk is full or fails, so no checkpoint may be written now.
        """
        self._file.sync()

    def close(self) -> None:
        """Write the lines that wait for disk space, and release the file.

        Raises:
            RunError: the last lines could not be written and are lost.
        """
        self._file.close()

    def _write(self, line: Line) -> None:
        self._file.append(line.to_json())
        self.last_step = max(self.last_step, line.step)
        if self._curves and isinstance(line, StepLine):
            self._curves.step_recorded(line.step)


def read_metrics(path: Path) -> list[Line]:
    """Return the complete lines of a metrics file; a torn last line is left out."""
    return list(read_backwards(path))[::-1]


def train_lines(path: Path) -> list[TrainLine]:
    """Return the lines of all applied steps, in order."""
    return [line for line in read_metrics(path) if isinstance(line, TrainLine)]


def step_lines(path: Path) -> dict[int, StepLine]:
    """Return the line of each step, applied or skipped, by step."""
    return {line.step: line for line in read_metrics(path) if isinstance(line, StepLine)}


def lines_after(path: Path, step: int) -> list[Line]:
    """Return all lines that follow the line of a step, in order.

    The file is read backwards from its end, so the duration depends only on the number of these
    lines.
    """
    lines = takewhile(lambda line: not _is_step_up_to(step, line), read_backwards(path))
    return list(lines)[::-1]


def follow(path: Path, step: int, wait: Callable[[], bool]) -> Iterator[Line]:
    """Yield the lines after the line of a step, in order, while the metrics file grows.

    If the metrics file is cut, replaced or missing for a while, reading continues after the last
    yielded step.

    Args:
        path: the metrics file.
        step: the step to start after.
        wait: blocks until the metrics file may have more lines, and returns True if no more lines
            will be written.

    Raises:
        FileNotFoundError: there is no metrics file at the start.
        RunError: a line is invalid or too long.
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
            raise RunError(
                f"{path} has a line at byte {new.position:,} that is too long. Restore the file "
                "from a copy"
            )
        for text in new.content.split(b"\n")[:-1]:
            line = parsed(path, text)
            step = max(step, line.step) if isinstance(line, StepLine) else step
            yield line
        if not new.content:
            if is_complete:
                return
            is_complete = wait()


def _tail_after(path: Path, step: int) -> LineTail | None:
    """Return a reader of the lines after the line of a step, or None if the file is missing."""
    try:
        return LineTail(path, _position_after(path, step))
    except FileNotFoundError:
        return None


def _position_after(path: Path, step: int) -> int:
    """Return the position after the line of a step; 0 if there is no line up to the step.

    If the step has no line, the position is after the line of the last earlier step.
    """
    for start, line in _lines_backwards(path):
        if _is_step_up_to(step, parsed(path, line)):
            return start + len(line) + 1
    return 0


def read_backwards(path: Path) -> Iterator[Line]:
    """Yield the complete lines of a metrics file, last line first; none if the file is missing."""
    if path.exists():
        for _, line in _lines_backwards(path):
            yield parsed(path, line)


def recorded_step(path: Path) -> int:
    """Return the step of a metrics file's last line, or 0 if it has no readable line.

    Use the function only to observe whether a run makes progress. It ignores damage, because the
    ranks report a damaged file in detail.
    """
    try:
        return next((line.step for line in read_backwards(path)), 0)
    except (OSError, RunError):
        return 0


def _lines_backwards(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the position and content of each complete line of a metrics file, last line first."""
    with path.open("rb") as file:
        yield from lines_backwards(ranges_of(file), file.seek(0, os.SEEK_END))


def _is_step_up_to(step: int, line: Line) -> bool:
    """Return whether a line is a step line of the given step or of an earlier step."""
    return isinstance(line, StepLine) and line.step <= step


def _place(line: StepLine | ValidationLine) -> tuple[bool, int]:
    """Return a key that is unique among the step lines and validation lines of a metrics file."""
    return isinstance(line, StepLine), line.step


def parsed(path: Path, line: bytes) -> Line:
    """Parse a line of a metrics file.

    Raises:
        RunError: the line is invalid; the message names the metrics file.
    """
    try:
        return parse_line(line)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["loc"][-1:] == ("version",):
            raise RunError(
                f"{path} has a line of version {problem['input']!r}, but this version reads up to "
                f"{VERSION}: use the version of transloom that wrote the line"
            ) from error
        where = ".".join(map(str, problem["loc"]))
        raise RunError(
            f"{path} has the line {line[:60]!r}, which is invalid "
            f"({where + ': ' if where else ''}{problem['msg']}). Restore the file from a copy, or "
            "remove the line; a resumed run repeats the steps after the newest checkpoint"
        ) from error


def _differences(
    before: StepLine | ValidationLine, after: StepLine | ValidationLine, tolerance: float
) -> dict[str, list[Any]]:
    """Return the fields that a repeated step failed to reproduce, as [before, after]."""
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
    return line.loss
