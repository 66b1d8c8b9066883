"""Read any lines of a metrics file (a record) by seeking, and count the bytes read.

Lines are in the order of their steps, so a binary search finds the position of a step. A record may
be read while it grows: text after the last line end is ignored. A record may also be damaged:
invalid lines are counted and reported, and the other lines are read.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from data_pipeline.storage.regular_files import open_regular
from foundation.file_model import FileModel
from trainer.record.line_reader import LONGEST_LINE_BYTES, LineRange, whole_lines
from trainer.record.metrics_lines import Event, SkippedLine, TrainLine, ValidationLine, parse_line
from trainer.scores import Scores

CHUNK_BYTES = 2**21
_END_BYTES = 2**14
_PROBE_BYTES = 2**12
# Numbers of bytes to read after a position to find a line with a step, one after another. If they
# contain none, the search tries `_PARTS` - 1 evenly spaced positions of its range.
_PROBES = (_PROBE_BYTES, 2**14, 2**16)
_PARTS = 16
# Maximum number of iterations of a binary search. This is enough for any intact file; a damaged
# file might need more.
_MAX_PROBES = 64
# A line with fewer bytes than this cannot be valid.
_SHORTEST_LINE = 20
# Text inside a JSON string cannot match these patterns, because its quotation marks are escaped.
_TRAIN = b'"kind": "train"'
_STEP = re.compile(rb'^\{(?:"version": \d{1,3}, )?"step": (\d{1,15})[,}]', re.MULTILINE)


class ScoredStep(FileModel):
    """Step and scores of a validation, without its samples."""

    step: int
    scores: Scores


@dataclass
class Lines:
    """Parsed lines by kind, and the number of damaged lines.

    Attributes:
        first_damage: position and problem of the first damaged line; None if there is none.
        validation_at: byte position and length in bytes of the last validation line.
    """

    train: list[TrainLine] = field(default_factory=list)
    validations: list[ValidationLine] = field(default_factory=list)
    events: list[Event | SkippedLine] = field(default_factory=list)
    damaged: int = 0
    first_damage: str | None = None
    validation_at: tuple[int, int] | None = None

    def scored(self) -> list[ScoredStep]:
        return [ScoredStep(step=line.step, scores=line.scores) for line in self.validations]

    def damage(self, words: str) -> None:
        self.damaged += 1
        self.first_damage = self.first_damage or words


def parse_lines(position: int, text: bytes, found: Lines) -> None:
    """Parse complete lines into `found`; the first one starts at byte `position` of the record."""
    # `bytes.splitlines` would also split at a carriage return.
    for line in text.split(b"\n")[:-1]:
        try:
            if len(line) < _SHORTEST_LINE:  # not parsed, so that a million of them take little time
                found.damage(f"at byte {position:,}, which is {line!r}")
            elif _TRAIN in line:
                found.train.append(TrainLine.model_validate_json(line))
            else:
                _parse_rare(position, line, found)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"]))[:80]
            found.damage(f"at byte {position:,} ({where}: {problem['msg'][:200]})")
        position += len(line) + 1


def _parse_rare(position: int, text: bytes, found: Lines) -> None:
    line = parse_line(text)
    if isinstance(line, ValidationLine):
        found.validations.append(line)
        found.validation_at = position, len(text)
    elif isinstance(line, TrainLine):  # with different spaces than in `_TRAIN`, so written by hand
        found.train.append(line)
    else:
        found.events.append(line)


class OpenRecord:
    """Record that is open for random access.

    Attributes:
        size: number of bytes when the record was opened.
        end: byte position of the end of the last complete line.
        bytes_read: number of bytes read so far.
        first_step, last_step: the first and the last readable step; None if no step is readable.
        line_bytes: mean length in bytes of the lines at the record's end.

    Raises:
        OSError: the file does not exist, or is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0
        self._file = open_regular(path)
        try:
            status = os.fstat(self._file.fileno())
            self.size, self.inode = status.st_size, status.st_ino
            self._read_ends()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range; fewer if the record has been truncated in the meantime."""
        data = os.pread(self._file.fileno(), max(0, stop - start), start)
        self.bytes_read += len(data)
        return data

    def read_lines(self, start: int, stop: int, found: Lines) -> None:
        """Parse the lines that are completely within a byte range into `found`."""
        position, text = self._lines_from(start, stop)
        parse_lines(position, text, found)

    def chunks(self, start: int, stop: int) -> Iterator[tuple[int, Lines]]:
        """Yield the lines of a byte range in chunks, each after the byte position of its end.

        Args:
            start: the start of a line.
            stop: the end of a line.
        """
        position = start
        length = CHUNK_BYTES
        while position < stop:
            data = self.read(position, min(stop, position + length))
            cut = data.rfind(b"\n") + 1
            found = Lines()
            if cut:
                parse_lines(position, data[:cut], found)
                position, length = position + cut, CHUNK_BYTES
                yield position, found
            elif position + len(data) >= stop or not data:
                return  # the last line is not complete yet
            elif length < LONGEST_LINE_BYTES:
                length *= 2
            else:
                position = self._line_end(position + len(data), stop)
                found.damage(f"a line of more than {LONGEST_LINE_BYTES:,} bytes")
                length = CHUNK_BYTES
                yield position, found

    def span(self, first_step: int | None, last_step: int | None) -> tuple[int, int]:
        """Return a byte range that contains the lines of some steps, and perhaps a few others.

        Args:
            first_step, last_step: the range of steps; None leaves that end of the range open.
        """
        start = 0 if first_step is None else self._byte_range_of(first_step)[0]
        if last_step is None:
            return start, self.end
        stop = self._byte_range_of(last_step + 1)[1]
        return start, max(start, self._line_end(stop, self.end))

    def _read_ends(self) -> None:
        length = _END_BYTES
        while True:
            start = max(0, self.size - length)
            data = self.read(start, self.size)
            self.end = start + data.rfind(b"\n") + 1 if b"\n" in data else 0
            steps = _STEP.findall(data[: self.end - start]) if self.end else []
            if steps or not start or length >= LONGEST_LINE_BYTES:
                break
            length *= 32
        first = _STEP.search(self.read(0, min(self.end, _PROBE_BYTES)))
        self.last_step = int(steps[-1]) if steps else None
        self.first_step = int(first[1]) if first else None
        self.line_bytes = (len(data) // data.count(b"\n")) if b"\n" in data else 1

    def _lines_from(self, start: int, stop: int) -> LineRange:
        """Return the complete lines of a byte range; a line may begin exactly at `start`."""
        return whole_lines(self.read, max(0, start - 1), stop)

    def _byte_range_of(self, step: int) -> tuple[int, int]:
        """Return two byte positions around the first line whose step is at least `step`.

        All lines before the first position have earlier steps. All lines from the second position
        on have this step or a later one.
        """
        low, high = 0, self.end
        for _ in range(_MAX_PROBES):
            if high - low <= _PROBE_BYTES:
                break
            middle = (low + high) // 2
            found = self._step_from(middle, high)
            if found is None:
                break  # no line is readable: the step may be anywhere between low and high
            place, found_step, is_first = found
            if found_step < step:
                low = place
            else:
                high = middle if is_first else place
        return low, high

    def _step_from(self, start: int, stop: int) -> tuple[int, int, bool] | None:
        """Return the position and the step of a line that starts in a byte range.

        The third value is True if the line is known to be the first line with a readable step in
        the range. Return None if no line with a readable step was found.
        """
        probes = [(start, length) for length in _PROBES]
        # If the range begins with a damaged part, sample the rest.
        places = (start + (stop - start) * part // _PARTS for part in range(1, _PARTS))
        probes += [(place, _PROBE_BYTES) for place in places]
        for place, length in probes:
            at, text = self._lines_from(place, min(place + length, self.end))
            if found := _STEP.search(text):
                at += found.start()
                return (at, int(found[1]), place == start) if at < stop else None
        return None

    def _line_end(self, position: int, stop: int) -> int:
        """Return the end of the line that contains a position; at most `stop`."""
        length = _PROBE_BYTES
        while position < stop:
            data = self.read(position, min(stop, position + length))
            if not data:
                break
            if (at := data.find(b"\n")) >= 0:
                return position + at + 1
            position += len(data)
            length = min(2 * length, CHUNK_BYTES)
        return stop
