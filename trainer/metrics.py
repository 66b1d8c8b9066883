"""metrics.jsonl, the record of a run: one JSON object a line.

The steps of training lines increase strictly, and so do those of validation lines; an event
stands at the last recorded step. After a restart the run repeats the steps since its last
checkpoint. They are in the record already, so they are compared with it instead of written again;
a difference is recorded as an event, because it means that the curve was not the same.
"""

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, TextIO

from trainer.errors import TrainerError

Line = dict[str, Any]

# Losses of a repeated step may differ by rounding when the shape (ranks, threads) has changed.
REPLAY_TOLERANCE = 1e-5
LOCK_TIMEOUT_SECONDS = 15.0
BLOCK_BYTES = 65536


class MetricsRecord:
    """Appends to metrics.jsonl; the one writer is rank 0."""

    def __init__(self, path: Path, resume_step: int) -> None:
        """``resume_step``: the step of the checkpoint that the run continues from, or 0."""
        self._file = path.open("a", encoding="utf-8")
        _lock(self._file, path)
        _cut_torn_line(path)
        self._recorded: dict[tuple[str, int], Line] = {}
        self.last_step = resume_step
        for line in lines_after(path, resume_step):
            self.last_step = max(self.last_step, line["step"])
            if line["step"] > resume_step and line["kind"] != "event":
                self._recorded[line["kind"], line["step"]] = line

    def append(self, line: Line) -> list[Line]:
        """Record a line; returns the lines written: none for a repeated step that is as before."""
        before = self._recorded.pop((line["kind"], line["step"]), None)
        if before is None:
            self._write(line)
            return [line]
        differences = _differences(before, line)
        if not differences:
            return []
        return [self.event("replay_mismatch", replayed_step=line["step"], fields=differences)]

    def event(self, event: str, **details: Any) -> Line:
        """Record that something happened, at the last recorded step; returns the line."""
        line = {"step": self.last_step, "kind": "event", "event": event, **details}
        self._write(line)
        return line

    def sync(self) -> None:
        """Let what is recorded survive a loss of power."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.sync()
        self._file.close()

    def _write(self, line: Line) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        self.last_step = max(self.last_step, line["step"])


def read_metrics(path: Path) -> list[Line]:
    """The complete lines of a record; a torn last line is left out."""
    return list(read_backwards(path))[::-1]


def lines_after(path: Path, step: int) -> list[Line]:
    """The lines after the training line of a step, so with all later steps; in order.

    Takes as long as there are such lines, however long the record is.
    """
    lines = takewhile(
        lambda line: line["kind"] != "train" or line["step"] > step, read_backwards(path)
    )
    return list(lines)[::-1]


def read_backwards(path: Path) -> Iterator[Line]:
    """The complete lines of a record, last one first."""
    if not path.exists():
        return
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        rest = b""  # the end of a line whose beginning is not read yet
        torn = True  # what follows the last line's end
        while position:
            size = min(position, BLOCK_BYTES)
            position -= size
            file.seek(position)
            # Not splitlines: a sentence may hold U+2028 and others that it takes for line ends.
            rest, *lines = (file.read(size) + rest).split(b"\n")
            for line in reversed(lines):
                if not torn:
                    yield _parse(path, line)
                torn = False
        if not torn:
            yield _parse(path, rest)


def _parse(path: Path, line: bytes) -> Line:
    try:
        parsed: Line = json.loads(line)
    except ValueError as error:
        raise TrainerError(
            f"{path} has a line that is no JSON object: {line[:60]!r}. Restore the record from a "
            "copy, or take the line out; the steps after the newest checkpoint are repeated anyway"
        ) from error
    return parsed


def _lock(file: TextIO, path: Path) -> None:
    """Make this process the record's one writer.

    A rank 0 of an attempt that was killed a moment ago may still be alive, so the lock is waited
    for. A file system without locks has none.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                file.close()
                raise TrainerError(
                    f"Another process has been writing {path} for {LOCK_TIMEOUT_SECONDS:.0f} s: "
                    "this run is being trained elsewhere. Stop that, or train another run"
                ) from error
            time.sleep(0.1)
        except OSError:
            return
        else:
            return


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        position = end
        while position > 0:
            start = max(0, position - BLOCK_BYTES)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            position = start
        file.truncate(0)


def _differences(before: Line, after: Line) -> Line:
    """Fields that must be equal in a repeated step and are not, each as [before, after]."""
    result = {}
    for field in ("data_digest", "target_tokens", "learning_rate"):
        if before.get(field) != after.get(field):
            result[field] = [before.get(field), after.get(field)]
    if not math.isclose(before["loss"], after["loss"], rel_tol=REPLAY_TOLERANCE):
        result["loss"] = [before["loss"], after["loss"]]
    return result
