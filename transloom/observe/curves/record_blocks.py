"""A record that is read here and there: by seeking, with a count of the bytes.

Lines are in the order of their steps, so that the place of a step is found by halving. A record may
be read while it grows: what stands after the last line end is not there yet. It may also be
damaged: lines that are not one of a record are counted and told, and the others are read.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from data_pipeline.storage.regular_files import open_regular
from trainer.record.line_reader import LONGEST_LINE_BYTES, LineRange, whole_lines
from trainer.record.metrics_lines import Event, SkippedLine, TrainLine, ValidationLine, parse_line

CHUNK_BYTES = 2**21
_END_BYTES = 2**14
_PROBE_BYTES = 2**12
# How far a place is read on for a line of which the step can be read; beyond, here and there.
_LONGEST_PROBE = 2**16
_PARTS = 16
# Enough to halve any file; more only if a record is damaged.
_MAX_PROBES = 64
# A shorter line says nothing.
_SHORTEST_LINE = 20
# No text within a line looks so: its quotation marks are escaped.
_TRAIN = b'"kind": "train"'
_STEP = re.compile(rb'^\{(?:"version": \d{1,3}, )?"step": (\d{1,15})[,}]', re.MULTILINE)


@dataclass
class Lines:
    """What has been read: the lines of steps, the rare lines, and how many are damaged.

    Attributes:
        validation_at: where the last line of a validation begins and how long it is.
    """

    train: list[TrainLine] = field(default_factory=list)
    validations: list[ValidationLine] = field(default_factory=list)
    events: list[Event | SkippedLine] = field(default_factory=list)
    damaged: int = 0
    first_damage: str | None = None
    validation_at: tuple[int, int] | None = None

    def damage(self, words: str) -> None:
        self.damaged += 1
        self.first_damage = self.first_damage or words


def parse_lines(position: int, text: bytes, found: Lines) -> None:
    """Parse whole lines, the first of which stands at a place of the record."""
    # Not splitlines: a sentence may hold U+2028 and others, which it takes for line ends.
    for line in text.split(b"\n")[:-1]:
        try:
            if len(line) < _SHORTEST_LINE:  # a million of them shall not take long
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
    elif isinstance(line, TrainLine):  # written by hand, with other spaces
        found.train.append(line)
    else:
        found.events.append(line)


class OpenRecord:
    """An open record.

    Attributes:
        size: its bytes when it was opened.
        end: where its last whole line ends.
        bytes_read: how many have been read.
        first_step, last_step: of its first and last line that can be read; None if it has none.
        line_bytes: the mean length of the lines at its end.

    Raises:
        OSError: it is not there, or no regular file.
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, start: int, stop: int) -> bytes:
        """The bytes of a range, fewer if the record has been cut meanwhile."""
        data = os.pread(self._file.fileno(), max(0, stop - start), start)
        self.bytes_read += len(data)
        return data

    def lines_within(self, start: int, stop: int) -> Lines:
        """The lines that lie in a range from their beginning to their end."""
        position, text = self._lines_from(start, stop)
        found = Lines()
        parse_lines(position, text, found)
        return found

    def chunks(self, start: int, stop: int) -> Iterator[tuple[int, Lines]]:
        """All lines from one line's beginning to another one's end, a part after another.

        Each part comes with the place where it ends.
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
                return  # the last line is still being written
            elif length < LONGEST_LINE_BYTES:
                length *= 2
            else:
                position = self._line_end(position + len(data), stop)
                found.damage(f"a line of more than {LONGEST_LINE_BYTES:,} bytes")
                length = CHUNK_BYTES
                yield position, found

    def span(self, first_step: int | None, last_step: int | None) -> tuple[int, int]:
        """Where the lines of these steps lie, with perhaps a few of their neighbours."""
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
        """Return the complete lines of a range, also one that begins with the range."""
        return whole_lines(self.read, max(0, start - 1), stop)

    def _byte_range_of(self, step: int) -> tuple[int, int]:
        """Two places: all lines before the first are of earlier steps, all from the second not."""
        low, high = 0, self.end
        for _ in range(_MAX_PROBES):
            if high - low <= _PROBE_BYTES:
                break
            middle = (low + high) // 2
            found = self._step_from(middle, high)
            if found is None:
                break  # nothing can be read there: the step lies anywhere between
            place, found_step, is_first = found
            if found_step < step:
                low = place
            else:
                high = middle if is_first else place
        return low, high

    def _step_from(self, start: int, stop: int) -> tuple[int, int, bool] | None:
        """A line that begins in a range: its place, its step, and whether it is the first one.

        None if there seems to be none whose step can be read.
        """
        length = _PROBE_BYTES
        while length <= _LONGEST_PROBE:
            at, text = self._lines_from(start, min(start + length, self.end))
            if found := _STEP.search(text):
                at += found.start()
                return (at, int(found[1]), True) if at < stop else None
            length *= 4
        for part in range(1, _PARTS):  # of a damaged stretch
            place = start + (stop - start) * part // _PARTS
            at, text = self._lines_from(place, min(place + _PROBE_BYTES, self.end))
            found = _STEP.search(text)
            if found and at + found.start() < stop:
                return at + found.start(), int(found[1]), False
        return None

    def _line_end(self, position: int, stop: int) -> int:
        """Where the line ends that a place lies in."""
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
