r"""Reader that cuts a file into blocks of whole lines, without decoding them.

Lines end at \n. A file whose first block has no \n but a \r, as older Macs wrote, has lines that
end at \r; its \r are read as \n.

The length of lines is limited, so that memory is constant for any file, including binaries and
decompression bombs.
"""

import sys

import numpy as np

from data_pipeline.corpora.formats import ChunkLines
from data_pipeline.errors import CorpusError
from data_pipeline.storage.locations import LocationStream

MAX_LINE_BYTES = 1024 * 1024  # maximum size of a line, including the line end
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors put it before the first line
OTHER_MARKS = {  # in this order, because the mark of UTF-32LE starts with that of UTF-16LE
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
ENCODING_UNITS = 1000  # number of 16-bit units from which an encoding is recognised
BLOCK_BYTES = 2 * MAX_LINE_BYTES
PART_BYTES = 32 * 1024 * 1024  # a part that reaches this size gets no more lines
WHOLE_FILE = range(sys.maxsize)


class LineReader:
    """Reader that cuts a stream into lines, one block at a time for speed.

    Attributes:
        lines: number of lines that were taken or skipped.
        has_text: whether any line so far is not blank.
        ends_at_return: whether lines end at carriage returns; known after the first block.
    """

    def __init__(
        self,
        stream: LocationStream,
        max_line_bytes: int = MAX_LINE_BYTES,
        span: range = WHOLE_FILE,
        *,
        returns_end_lines: bool = True,
    ) -> None:
        r"""Start at the beginning of a stream.

        Args:
            span: byte range; lines that begin outside of it are skipped.
            returns_end_lines: whether \r ends the lines of a file without \n.
        """
        self.location = stream.location
        self.lines = 0
        self.has_text = False
        self.ends_at_return = False
        self._stream = stream
        self._max_line_bytes = max_line_bytes
        self._span = span
        self._block = b""
        self._block_start = 0  # offset of the block in the file
        self._ends = np.empty(0, dtype=np.int64)  # ends of the whole lines in the block
        self._next = 0  # first line of the block that was not taken yet
        self._tail = b""  # incomplete line at the end of the block
        self._returns_end_lines = returns_end_lines

    def take(self, count: int, max_bytes: int | None = PART_BYTES) -> ChunkLines:
        """Return the next `count` lines; fewer if the file ends or they reach `max_bytes`.

        Raises:
            CorpusError: a line is too long.
        """
        first, taken = self.lines + 1, 0
        parts: list[bytes] = []
        size = 0
        while count and (max_bytes is None or size < max_bytes):
            if self._next == len(self._ends) and not self._fill():
                break
            after = min(self._next + count, len(self._ends))
            if not parts:
                first = self.lines + 1  # `_fill` may have skipped lines
            start = self._ends[self._next - 1] if self._next else 0
            parts.append(self._block[start : self._ends[after - 1]])
            size += len(parts[-1])
            count -= after - self._next
            taken += after - self._next
            self.lines += after - self._next
            self._next = after
        return ChunkLines(self.location, first, taken, b"".join(parts))

    def _fill(self) -> bool:
        """Read the next block with lines in the span; return False if no line is left."""
        while self._read_block():
            starts = self._block_start + np.concatenate(([0], self._ends[:-1]))
            first, last = np.searchsorted(starts, (self._span.start, self._span.stop))
            self.lines += int(first)
            self._next, self._ends = int(first), self._ends[:last]
            if first < last:
                return True
            if last < len(starts):
                return False
        return False

    def _read_block(self) -> bool:
        """Read at least to the end of a line; return False at the end of the file."""
        parts = [self._tail]
        while True:
            parts.append(self._stream.read(BLOCK_BYTES))
            is_end = len(parts[-1]) < BLOCK_BYTES
            line_end = b"\r" if self.ends_at_return else b"\n"
            if is_end or line_end in parts[-1] or sum(map(len, parts)) > self._max_line_bytes:
                break
        self._block_start += len(self._block) - len(self._tail)
        block = b"".join(parts)
        if not self._block_start and not self._block:
            if encoding := _other_encoding(block):
                raise self._not_utf8(encoding)
            block = block.removeprefix(BYTE_ORDER_MARK)
            only_returns = b"\n" not in block and b"\r" in block
            self.ends_at_return = self._returns_end_lines and only_returns
        if self.ends_at_return:
            if b"\n" in block[len(self._tail) :]:
                raise self._mixed_line_ends()
            block = block.replace(b"\r", b"\n")
        ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + 1
        if is_end and block and not block.endswith(b"\n"):
            ends = np.append(ends, len(block))
        too_long = np.diff(ends, prepend=0, append=len(block)) > self._max_line_bytes
        if too_long.any():
            raise self._too_long(self.lines + int(too_long.argmax()) + 1)
        self._block, self._ends, self._next = block, ends, 0
        self._tail = block[ends[-1] :] if len(ends) else block
        self.has_text = self.has_text or bool(block.strip())
        return len(ends) > 0

    def _not_utf8(self, encoding: str) -> CorpusError:
        return CorpusError(
            f"{self.location} is text in {encoding}, expected UTF-8. Convert the file, for example "
            f"with iconv -f {encoding} -t UTF-8."
        )

    def _mixed_line_ends(self) -> CorpusError:
        return CorpusError(
            f"{self.location} has lines that end at a carriage return (\\r), but from line "
            f"{self.lines + 1:,} on also newlines (\\n). Convert the file to newlines, for example "
            "with tr '\\r' '\\n'."
        )

    def _too_long(self, line: int) -> CorpusError:
        problem = (
            f"{self.location}, line {line:,}: the line is longer than {self._max_line_bytes:,} "
            "bytes after decompression"
        )
        if self._max_line_bytes > MAX_LINE_BYTES:
            return CorpusError(
                f"{problem}, which is too much to hold in memory with its copies. Split the "
                "document, or remove the line."
            )
        return CorpusError(
            f"{problem}, which is too long for a sentence. Give a text file with a sentence or "
            "pair on each line, or remove the line, from both sides if there are two files."
        )


def _other_encoding(start: bytes) -> str | None:
    """Return the name of the encoding if a file starts with text in UTF-16 or UTF-32, else None."""
    for mark, encoding in OTHER_MARKS.items():
        if start.startswith(mark):
            return encoding
    # Without a mark: in most alphabets, the upper bytes of UTF-16 are 0 and the lower are not.
    units = start[: 2 * ENCODING_UNITS]
    zeros = [units[half::2].count(0) for half in (0, 1)]
    if max(zeros) > len(units) / 4 and min(zeros) < len(units) / 16:
        return "UTF-16BE" if zeros[0] > zeros[1] else "UTF-16LE"
    return None
