"""The new lines of a record that another process writes, for whoever watches a run.

    follower = RecordFollower(run.metrics, tail_bytes=2**18)
    follower.look()  ─▶ the lines at its end, then, each time, those that were appended since

Each byte is read once. The record may not be there yet, end within a line, shrink, be replaced by
another file, or hold lines that are none: that is told, and the rest is read.
"""

import os
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from data_pipeline.storage.regular_files import open_regular
from trainer.record.records import Line, parse_line

# What one look reads at most; the next one goes on from there.
BYTES_OF_A_LOOK = 2**22


class NewLines(NamedTuple):
    """What a look has found.

    Attributes:
        lines: complete ones, in order.
        begins_anew: whether they are of another file than those before, or of one that was cut.
        unreadable: how many lines are none of a record.
    """

    lines: list[Line]
    begins_anew: bool = False
    unreadable: int = 0


class RecordFollower:
    """Reads a record from near its end on."""

    def __init__(self, path: Path, tail_bytes: int) -> None:
        """
        Args:
            tail_bytes: how much of the end of a file the first look at it takes.
        """
        self._path = path
        self._tail_bytes = tail_bytes
        self._file: tuple[int, int] | None = None  # device and inode
        self._position = 0
        self._in_line = False  # whether the position is within a line, whose rest is skipped

    def look(self) -> NewLines:
        """The lines that have come since the last look.

        Raises:
            OSError: there is something, and it cannot be read.
        """
        try:
            with open_regular(self._path) as file:
                facts = os.fstat(file.fileno())
                begins_anew = self._turn_to((facts.st_dev, facts.st_ino), facts.st_size)
                file.seek(self._position)
                data = file.read(BYTES_OF_A_LOOK)
        except FileNotFoundError:
            return NewLines([])
        return self._lines(data)._replace(begins_anew=begins_anew)

    def _turn_to(self, file: tuple[int, int], size: int) -> bool:
        """Begin near the end of a file that is not the one before; return whether that is so."""
        if file == self._file and size >= self._position:
            return False
        begins_anew = self._file is not None
        self._file = file
        self._position = max(0, size - self._tail_bytes)
        self._in_line = self._position > 0
        return begins_anew

    def _lines(self, data: bytes) -> NewLines:
        end = data.rfind(b"\n") + 1
        if not end and len(data) == BYTES_OF_A_LOOK:  # no line of ours is so long
            self._position += len(data)
            self._in_line = True
            return NewLines([], unreadable=1)
        self._position += end
        texts = data[:end].split(b"\n")[:-1]
        if texts and self._in_line:
            texts, self._in_line = texts[1:], False
        lines: list[Line] = []
        for text in texts:
            try:
                lines.append(parse_line(text))
            except ValidationError:
                continue
        return NewLines(lines, unreadable=len(texts) - len(lines))
