"""metrics.jsonl, the record of a run: one JSON object a line.

Every step has one line, of kind ``train``, or ``skipped`` if it was not applied. The steps of these
lines increase strictly, and so do those of validation lines; an event stands at the last recorded
step. After a restart the run repeats the steps since its last checkpoint. They are in the record
already, so they are compared with it instead of written again; a difference is recorded as an
event, because it means that the curve was not the same.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.tracking.line_file import LineFile

Line = dict[str, Any]

# Losses of a repeated step may differ by rounding when the shape (ranks, threads) has changed,
# unless numerics are exact.
REPLAY_TOLERANCE = 1e-5
BLOCK_BYTES = 65536


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
            notice: is told when the disk is full, and when it is so no longer.
            tolerance: relative, within which the loss of a repeated step is the same.
        """
        self._tolerance = tolerance
        self._file = LineFile(path, notice)
        self._recorded: dict[tuple[bool, int], Line] = {}
        self.last_step = resume_step
        for line in lines_after(path, resume_step):
            self.last_step = max(self.last_step, line["step"])
            if line["kind"] != "event":
                self._recorded[_place(line)] = line

    def has(self, line: Line) -> bool:
        """Whether the line repeats one that an earlier start of the ranks has recorded."""
        return _place(line) in self._recorded

    def append(self, line: Line) -> Line | None:
        """Record a line; a repeat is not written again, and returns an event if it differs."""
        before = self._recorded.pop(_place(line), None)
        if before is None:
            self._write(line)
            return None
        differences = _differences(before, line, self._tolerance)
        if not differences:
            return None
        return self.event("replay_mismatch", replayed_step=line["step"], fields=differences)

    def event(self, event: str, **details: Any) -> Line:
        """Record that something happened, at the last recorded step; returns the line."""
        line = {"step": self.last_step, "kind": "event", "event": event, **details}
        self._write(line)
        return line

    def sync(self) -> None:
        """Let what is recorded survive a loss of power.

        Raises:
            CheckpointError: the disk is full or fails; no checkpoint may be ahead of the record.
        """
        self._file.sync()

    def close(self) -> None:
        """Raises TrainerError if the record's end is lost."""
        self._file.close()

    def _write(self, line: Line) -> None:
        self._file.append(json.dumps(line, ensure_ascii=False, allow_nan=False))
        self.last_step = max(self.last_step, line["step"])


def is_step(line: Line) -> bool:
    """Whether this is the line that each step has."""
    return line["kind"] in ("train", "skipped")


def read_metrics(path: Path) -> list[Line]:
    """The complete lines of a record; a torn last line is left out."""
    return list(read_backwards(path))[::-1]


def lines_after(path: Path, step: int) -> list[Line]:
    """The lines after the line of a step, so with all later steps; in order.

    Takes as long as there are such lines, however long the record is.
    """
    lines = takewhile(lambda line: not _is_by(step, line), read_backwards(path))
    return list(lines)[::-1]


def follow(path: Path, step: int, wait: Callable[[], bool]) -> Iterator[Line]:
    """The lines after the line of a step, in order, while the record grows.

    ``wait`` waits until there may be more; it returns whether they are the last ones.
    """
    position = 0
    for start, line in _lines_backwards(path):
        if _is_by(step, _parse(path, line)):
            position = start + len(line) + 1
            break
    with path.open("rb") as file:
        file.seek(position)
        complete = False
        while True:
            while (line := file.readline()).endswith(b"\n"):
                yield _parse(path, line)
            if complete:
                return
            file.seek(-len(line), os.SEEK_CUR)  # it is being written
            complete = wait()


def read_backwards(path: Path) -> Iterator[Line]:
    """The complete lines of a record, last one first."""
    if path.exists():
        for _, line in _lines_backwards(path):
            yield _parse(path, line)


def _lines_backwards(path: Path) -> Iterator[tuple[int, bytes]]:
    """The complete lines of a record, last one first, each with where it begins."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        rest = b""  # the end of a line whose beginning is not read yet
        torn = True  # what follows the last line's end
        while position:
            size = min(position, BLOCK_BYTES)
            position -= size
            file.seek(position)
            content = file.read(size) + rest
            end = position + len(content)
            # Not splitlines: a sentence may hold U+2028 and others that it takes for line ends.
            rest, *lines = content.split(b"\n")
            for line in reversed(lines):
                if not torn:
                    yield end - len(line), line
                torn = False
                end -= len(line) + 1
        if not torn:
            yield 0, rest


def _is_by(step: int, line: Line) -> bool:
    """Whether this is the line of a step, or of one before."""
    return is_step(line) and bool(line["step"] <= step)


def _place(line: Line) -> tuple[bool, int]:
    """What only one line of the record has, events apart."""
    return is_step(line), line["step"]


def _parse(path: Path, line: bytes) -> Line:
    try:
        parsed: Line = json.loads(line)
    except ValueError as error:
        raise TrainerError(
            f"{path} has a line that is no JSON object: {line[:60]!r}. Restore the record from a "
            "copy, or take the line out; the steps after the newest checkpoint are repeated anyway"
        ) from error
    return parsed


def _differences(before: Line, after: Line, tolerance: float) -> Line:
    """Fields that must be equal in a repeated step and are not, each as [before, after]."""
    result = {}
    for field in ("kind", "data_digest", "target_tokens", "learning_rate"):
        if before.get(field) != after.get(field):
            result[field] = [before.get(field), after.get(field)]
    losses = [line["loss"] for line in (before, after) if "loss" in line]
    if len(losses) == 2 and not math.isclose(*losses, rel_tol=tolerance):
        result["loss"] = losses
    return result
