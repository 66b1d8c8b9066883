"""Readers of a file of lines that another process appends to.

::

    whole_lines      the complete lines within a range of bytes
    readable_lines   the lines that can be parsed
    lines_backwards  the complete lines, last line first
    LineTail         the lines that were appended since the last read

A line is complete once its line end is written. The text after the last line end is torn or still
being written: no reader returns it, and the next start of the writer may cut it off.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from pydantic import ValidationError

from data_pipeline.storage.regular_files import open_regular

T = TypeVar("T")

BLOCK_BYTES = 65536
READ_BYTES = 2**18
# Far more than any line needs: a validation with its samples has some kilobytes.
LONGEST_LINE_BYTES = 2**24

# Function that returns the bytes between two positions of a file, or fewer at the file's end.
ReadRange = Callable[[int, int], bytes]


class LineRange(NamedTuple):
    """Complete lines, and the position of the first one."""

    position: int
    content: bytes


def ranges_of(file: BinaryIO) -> ReadRange:
    """Return the function that reads ranges of an open file."""

    def read(start: int, stop: int) -> bytes:
        file.seek(start)
        return file.read(stop - start)

    return read


def whole_lines(read: ReadRange, start: int, stop: int) -> LineRange:
    """Return the complete lines within a range of bytes.

    A line that starts before the range is incomplete. So, unless the range starts at the beginning
    of the file, the text before the first line end is left out.
    """
    data = read(start, stop)
    begin = data.find(b"\n") + 1 if start else 0
    if start and not begin:
        return LineRange(stop, b"")
    return LineRange(start + begin, data[begin : max(begin, data.rfind(b"\n") + 1)])


def readable_lines(text: bytes, parse: Callable[[bytes], T]) -> tuple[list[T], int]:
    """Return the parsed complete lines of a text, and the number of unreadable lines.

    Args:
        parse: parses a line without its line end; raises ValidationError if the line is unreadable.
    """
    texts = text.split(b"\n")[:-1]
    lines: list[T] = []
    for line in texts:
        with suppress(ValidationError):
            lines.append(parse(line))
    return lines, len(texts) - len(lines)


def lines_backwards(read: ReadRange, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the complete lines before a position, last line first, each with its position.

    The lines have no line ends.
    """
    later: list[bytes] = []  # blocks of a line whose start has not been read yet, last block first
    is_torn = True  # the text after the last line end is torn
    line_end = position = end
    while position:
        start = max(0, position - BLOCK_BYTES)
        # Do not use splitlines, which also splits at U+2028 and other characters that a sentence
        # may have.
        first, *others = read(start, position).split(b"\n")
        for part in reversed(others):
            line = b"".join([part, *reversed(later)])
            later.clear()
            if not is_torn:
                yield line_end - len(line), line
            is_torn = False
            line_end -= len(line) + 1
        later.append(first)
        position = start
    if not is_torn:
        yield 0, b"".join(reversed(later))


def last_line_end(read: ReadRange, end: int, most_bytes: int | None = None) -> int | None:
    """Return the end of the last complete line before a position.

    Args:
        read: reads a range of the file.
        end: the position to search backwards from.
        most_bytes: the maximum number of bytes to search; None searches to the start of the file.

    Returns:
        The end of the line; 0 if there is no such line, or None if the limit is reached.
    """
    least = 0 if most_bytes is None else max(0, end - most_bytes)
    position = end
    while position > least:
        start = max(least, position - BLOCK_BYTES)
        if found := read(start, position).rfind(b"\n") + 1:
            return start + found
        position = start
    return None if position else 0


class TailRead(NamedTuple):
    """Result of one read of a `LineTail`.

    Attributes:
        position: the position of the first line.
        content: complete lines with their line ends.
        is_other: whether the file was replaced or cut since the last read. If so, the lines are
            from the end of the new content.
        has_long_line: whether a line was left out because it was too long.
    """

    position: int = 0
    content: bytes = b""
    is_other: bool = False
    has_long_line: bool = False


class LineTail:
    """Reader that returns each line appended to a file exactly once.

    The reader opens the file for each read, because shared storage shows appended lines only then.
    A process that replaces the file does not have to wait. The file may be missing, end with an
    incomplete line, be cut, or be replaced.

        =========================================  ===============================================
        the file                                   the next read
        =========================================  ===============================================
        does not exist yet, then appears           begins with its first line
        is missing for a moment                    continues after the last line returned
        its incomplete last line vanishes or is    continues after the last complete line
        written again
        is cut within the lines already returned,  begins near the end, and reports that the file
        or replaced by another file                is a different one
        =========================================  ===============================================
    """

    def __init__(
        self,
        path: Path,
        position: int | None = None,
        *,
        tail_bytes: int = 0,
        read_bytes: int = READ_BYTES,
        longest_line_bytes: int = LONGEST_LINE_BYTES,
    ) -> None:
        """Prepare a reader; nothing is opened yet.

        Args:
            path: the file, which may be missing.
            position: the position of the first line to read; None begins near the end of the file.
            tail_bytes: the first read of a file without a `position`, or of a replaced file, begins
                this many bytes before the end, moved back to the beginning of a line.
            read_bytes: the largest number of bytes that one read returns, unless a single line is
                longer.
            longest_line_bytes: longer lines are left out.
        """
        self._path = path
        self._position = position
        self._tail_bytes = tail_bytes
        self._read_bytes = self._length = read_bytes
        self._longest_line_bytes = longest_line_bytes
        self._file: tuple[int, int] | None = None  # device and inode
        self._is_within_line = False  # True while the rest of a too long line is skipped

    def read(self) -> TailRead:
        """Return the next complete lines.

        Raises:
            OSError: the path exists and cannot be read.
        """
        try:
            file = open_regular(self._path)
        except FileNotFoundError:
            if self._file is None:
                self._position = 0
            return TailRead()
        with file:
            status = os.fstat(file.fileno())
            read = ranges_of(file)
            position, is_other = self._start_position(status, read)
            return self._appended(read, position)._replace(is_other=is_other)

    def _start_position(self, status: os.stat_result, read: ReadRange) -> tuple[int, bool]:
        """Return the position to read from, and whether the file was replaced or cut."""
        file, before = (status.st_dev, status.st_ino), self._position
        is_same = self._file in (None, file)
        self._file = file
        if before is not None and is_same and self._is_unchanged(before, status.st_size, read):
            return before, False
        begin = max(0, status.st_size - self._tail_bytes)
        line_begin = last_line_end(read, begin, self._longest_line_bytes)
        self._is_within_line = line_begin is None
        self._position = begin if line_begin is None else line_begin
        return self._position, before is not None

    def _is_unchanged(self, position: int, size: int, read: ReadRange) -> bool:
        """Return whether a file still seems to have the lines that were read.

        The test is whether a line ends at `position`. If the file was cut and has grown beyond
        `position` again, a line rarely ends there.
        """
        if size < position:
            return False
        return not position or self._is_within_line or read(position - 1, position) == b"\n"

    def _appended(self, read: ReadRange, position: int) -> TailRead:
        while True:
            data = read(position, position + self._length)
            if end := data.rfind(b"\n") + 1:
                begin = data.find(b"\n") + 1 if self._is_within_line else 0
                self._position, self._length = position + end, self._read_bytes
                self._is_within_line = False
                return TailRead(position + begin, data[begin:end])
            if len(data) < self._length:  # the last line is torn, or being written
                return TailRead(position)
            if self._length >= self._longest_line_bytes:
                self._position, self._is_within_line = position + len(data), True
                return TailRead(position, has_long_line=True)
            self._length = min(4 * self._length, self._longest_line_bytes)
