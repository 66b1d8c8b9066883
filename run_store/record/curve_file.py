"""Curve file of a run: the numbers of its record (metrics.jsonl), in blocks that are appended.

::

    metrics.jsonl ──1,024 steps──▶ one block ──▶ curves.bin ──▶ points, validations, events

    block = prefix   sizes and checksums of the other parts
            header   one object of JSON: the range of the record, the names of the columns, and the
                     lines of validations and events
            points   means and extremes of `POINT_STEPS` steps each, as float64
            steps    a value for each step: float64 for the step, the time and running totals,
                     float32 for other numbers

Points and steps are stored column after column. A block has a column for each value that at least
one of its steps has. A fact that the run begins to record later therefore appears in later blocks.
The values of a skipped step and unknown values are NaN with different bits.

The record is authoritative, and the curve file repeats its numbers. Each block names its range of
the record and has a checksum of the end of that range. Readers therefore notice that a record was
cut or replaced: they use the blocks up to the first one that does not match, and read the later
lines from the record. A block that is missing, because the process was killed or the disk was full,
is written before the next one.
"""

import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_pipeline.storage.regular_files import open_regular
from foundation.file_model import Count, FileModel, error_summary
from run_store.record.curve_points import ROW_COLUMNS, STEP_COLUMNS, Points
from run_store.record.line_blocks import BLOCK_STEPS, LineBlock, read_blocks
from run_store.record.metrics_lines import TrainLine

POINT_STEPS = 64
# Each block takes 20 ms. The blocks that a run of an earlier version lacks are added in several
# steps.
BLOCKS_AT_ONCE = 8
DOUBLES = frozenset(("step", "time", "target_tokens_seen", "wall_seconds", "counted_seconds"))
# NaN of a skipped step, whose bits differ from those of numpy's NaN as float32, too.
SKIPPED = np.uint64(0x7FF8_0000_2000_0000)
# Limits of what a reader accepts: bytes of one block's header and points, and bytes of all blocks,
# enough for 50 to 100 million steps.
MAX_HEADER_BYTES = 2**26
MAX_READ_BYTES = 2**29
MAX_COLUMNS = 64
# Number of bytes at the end of a block's range that identify the record.
_CHECKED_BYTES = 512
_MAGIC = b"curves 1"
# Magic bytes; sizes of header, points and steps; checksums of header and points, and of steps.
_PREFIX = struct.Struct("<8s5I")

ColumnType = Literal["<f8", "<f4"]
Name = Annotated[str, Field(max_length=60)]


class BlockHeader(FileModel):
    """Header of a block.

    Attributes:
        lines: the lines of the record, except for those of steps that were applied.
        record_crc32: checksum of the end of these lines.
        rows: the number of steps, applied or skipped.
        steps: the columns of the steps.
        points: the columns of the points.
    """

    lines: LineBlock
    record_crc32: Count
    rows: Annotated[int, Field(ge=0, le=BLOCK_STEPS)]
    steps: Annotated[dict[Name, ColumnType], Field(max_length=MAX_COLUMNS)]
    points: Annotated[tuple[Name, ...], Field(max_length=MAX_COLUMNS)]


@dataclass(frozen=True, eq=False)
class CurveBlock:
    """Block of a curve file; its steps are read when they are needed.

    Attributes:
        steps_at, end: byte positions of the steps and of the next block.
        steps_crc32: checksum of the steps.
    """

    header: BlockHeader
    points: Points
    steps_at: int
    steps_crc32: int
    end: int

    def read_steps(self, file: int) -> Points:
        """Return a point for each applied step; the block's points if the steps are damaged."""
        data = os.pread(file, self.end - self.steps_at, self.steps_at)
        row_bytes = sum(np.dtype(kind).itemsize for kind in self.header.steps.values())
        if len(data) != row_bytes * self.header.rows or zlib.crc32(data) != self.steps_crc32:
            return self.points
        stored, position = {}, 0
        for name, kind in self.header.steps.items():
            stored[name] = np.frombuffer(data, kind, self.header.rows, position)
            position += stored[name].nbytes
        values = _rows(stored, self.header.rows, STEP_COLUMNS)
        is_applied = values[:, STEP_COLUMNS.index("time")].copy().view(np.uint64) != SKIPPED
        return Points.of_steps(values[is_applied])


class CurveFile:
    """Curve file of a record.

    Attributes:
        blocks: the blocks that were intact and matched the record when the file was opened.
        end: byte position after the last of these blocks, or after the last block that was written.
        record_end, last_step: position in the record and step up to which there are blocks.
        problem: the reason why a later block cannot be read. None if there is no such block, or if
            it does not match the record.
    """

    def __init__(self, path: Path, record: Path) -> None:
        """Read the blocks of a file, which may be missing or damaged.

        Args:
            record: the metrics file.
        """
        self.path, self._record = path, record
        self.blocks: list[CurveBlock] = []
        self.end = self.record_end = self.last_step = self.bytes_read = 0
        self.problem: str | None = None
        self._next_step = 0  # the step at which the next block may be full
        try:
            with open_regular(path) as file, open_regular(record) as text:
                self._read(file.fileno(), text.fileno())
        except (OSError, ValueError, struct.error) as error:
            self.problem = f"at byte {self.end:,} ({error_summary(error)})"

    def step_recorded(self, step: int) -> None:
        """Append the blocks that have become full with a step, which the record has already.

        If the file cannot be written, for example on a full disk, the blocks are appended later.
        Readers do not need them.
        """
        if step >= self._next_step:
            self._next_step = step + BLOCK_STEPS
            with suppress(OSError):
                self.extend(BLOCKS_AT_ONCE)
                self._next_step = self.last_step + BLOCK_STEPS

    def extend(self, most_blocks: int | None = None) -> None:
        """Append the record's new blocks; leave out the last lines, which do not fill a block yet.

        Args:
            most_blocks: the maximum number of blocks to append; None for no limit.

        Raises:
            OSError: the file cannot be written.
        """
        blocks = read_blocks(self._record, self.record_end, self.last_step)
        for block in islice(blocks, most_blocks):
            if not block.is_full:
                return
            with open_regular(self._record) as record:
                content = encode(block, _crc32(record.fileno(), block))
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            with os.fdopen(os.open(self.path, flags, 0o666), "wb", buffering=0) as file:
                file.truncate(self.end)  # removes mismatching and incomplete blocks
                if os.pwrite(file.fileno(), content, self.end) < len(content):
                    raise OSError(f"{self.path} is on a full disk")
            self.end, self.record_end = self.end + len(content), block.end
            self.last_step = block.last_step

    def _read(self, file: int, record: int) -> None:
        """Read the blocks without their steps.

        Raises:
            ValueError: a block is damaged or incomplete.
        """
        size = os.fstat(file).st_size
        while self.end < size and self.bytes_read < MAX_READ_BYTES:
            block = _read_block(file, self.end, size)
            lines = block.header.lines
            is_next = lines.start == self.record_end < lines.end
            if not is_next or block.header.record_crc32 != _crc32(record, lines):
                return
            self.blocks.append(block)
            self.bytes_read += block.steps_at - self.end
            self.end, self.record_end, self.last_step = block.end, lines.end, lines.last_step


def _read_block(file: int, position: int, size: int) -> CurveBlock:
    """Read a block of a file that has `size` bytes.

    Raises:
        ValueError, struct.error: the block is damaged or incomplete.
    """
    prefix = _PREFIX.unpack(os.pread(file, _PREFIX.size, position))
    magic, header_bytes, points_bytes, steps_bytes, crc32, steps_crc32 = prefix
    start, length = position + _PREFIX.size, header_bytes + points_bytes
    end = start + length + steps_bytes
    if magic != _MAGIC or length > MAX_HEADER_BYTES or end > size:
        raise ValueError("its block is incomplete, or of another version")
    data = os.pread(file, length, start)
    if zlib.crc32(data) != crc32:
        raise ValueError("its checksum differs")
    header = BlockHeader.model_validate_json(data[:header_bytes])
    stored = np.frombuffer(data, "<f8", offset=header_bytes).reshape(len(header.points), -1)
    if header.points != ROW_COLUMNS:  # columns of another version
        columns = dict(zip(header.points, stored, strict=True))
        stored = _rows(columns, stored.shape[1], ROW_COLUMNS).T
    return CurveBlock(header, Points(stored.T), start + length, steps_crc32, end)


def _rows(stored: dict[str, NDArray[Any]], rows: int, columns: tuple[str, ...]) -> NDArray[Any]:
    """Return an array with these columns; values of a column that is not stored are unknown."""
    unknown = np.full(rows, np.nan)
    return np.array([stored.get(name, unknown) for name in columns], np.float64).T


def encode(block: LineBlock, record_crc32: int) -> bytes:
    """Return a block of the curve file."""
    applied = Points.of_lines(block.train)
    values = np.full((len(block.steps), len(STEP_COLUMNS)), SKIPPED).view(np.float64)
    is_applied = [isinstance(line, TrainLine) for line in block.steps]
    values[is_applied] = applied.rows[:, 2 : 2 + len(STEP_COLUMNS)]
    values[:, 0] = [line.step for line in block.steps]
    columns = dict(zip(STEP_COLUMNS, values.T, strict=True))
    columns = {name: column for name, column in columns.items() if np.isfinite(column).any()}
    header = BlockHeader(
        lines=replace(block, steps=[]),
        record_crc32=record_crc32,
        rows=len(values),
        steps={name: "<f8" if name in DOUBLES else "<f4" for name in columns},
        points=ROW_COLUMNS,
    )
    text = header.model_dump_json().encode()
    points = applied.by_width(POINT_STEPS).rows.T.astype("<f8").tobytes()
    with np.errstate(over="ignore"):  # the numbers of an untrusted record may overflow
        steps = b"".join(
            columns[name].astype(kind).tobytes() for name, kind in header.steps.items()
        )
    sizes, crc32s = map(len, (text, points, steps)), map(zlib.crc32, (text + points, steps))
    return _PREFIX.pack(_MAGIC, *sizes, *crc32s) + text + points + steps


def _crc32(record: int, lines: LineBlock) -> int:
    """Return the checksum of the end of some lines; it differs if the record lacks the end."""
    start = max(lines.start, lines.end - _CHECKED_BYTES)
    return zlib.crc32(os.pread(record, max(0, lines.end - start), start))
