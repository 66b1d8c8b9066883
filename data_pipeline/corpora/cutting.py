"""Cutting: from the streams of a corpus's files to raw parts of whole lines or samples.

    aligned streams ──▶ AlignedLines        one stream ──▶ TsvLines, JsonLines or Samples

Nothing is decoded here; formats.py does that. Lines, sentences and parts have limits, so that
memory is constant whatever a file holds, a binary or a decompression bomb too.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import BinaryIO, cast

import numpy as np

from data_pipeline.corpora.formats import (
    AlignedLines,
    Content,
    JsonLines,
    Lines,
    Sample,
    Samples,
    TsvColumns,
    TsvLines,
)
from data_pipeline.corpus_config import Columns
from data_pipeline.errors import CorpusError, TarContentError
from data_pipeline.storage.locations import LocationStream
from data_pipeline.storage.tar import Member, read_members
from data_pipeline.wording import counted, listed

MAX_LINE_BYTES = 1024 * 1024  # with its end
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors put it before the first line
BLOCK_BYTES = 2 * MAX_LINE_BYTES  # so that a block without a line's end is an error
PART_BYTES = 32 * 1024 * 1024  # a part of this size gets no more lines
ALIGNED_STEP = 64  # lines taken at a time from each of two aligned files
MAX_MEMBER_BYTES = 64 * 1024 * 1024


class LineReader:
    """Cuts a stream into lines, a block at a time and never a line by itself.

    Attributes:
        lines: number of lines that were taken.
        has_text: whether any line so far is not blank.
    """

    def __init__(self, stream: LocationStream) -> None:
        self.location = stream.location
        self.lines = 0
        self.has_text = False
        self._stream = stream
        self._block = b""
        self._ends = np.empty(0, dtype=np.int64)  # ends of the whole lines in the block
        self._next = 0  # the first line of the block that was not taken
        self._tail = b""  # the part of a line at the end of the block

    def take(self, count: int, max_bytes: int | None = PART_BYTES) -> Lines:
        """The next `count` lines; fewer at the end, or if they have `max_bytes` already.

        Raises:
            CorpusError: a line has more than MAX_LINE_BYTES.
        """
        first = self.lines + 1
        parts: list[bytes] = []
        size = 0
        while count and (max_bytes is None or size < max_bytes):
            if self._next == len(self._ends) and not self._fill():
                break
            after = min(self._next + count, len(self._ends))
            start = self._ends[self._next - 1] if self._next else 0
            parts.append(self._block[start : self._ends[after - 1]])
            size += len(parts[-1])
            count -= after - self._next
            self.lines += after - self._next
            self._next = after
        return Lines(self.location, first, self.lines + 1 - first, b"".join(parts))

    def _fill(self) -> bool:
        """Gets the next block once all lines of the last one are taken; false at the end."""
        new = self._stream.read(BLOCK_BYTES)
        block = self._tail + new
        if not self.lines:
            block = block.removeprefix(BYTE_ORDER_MARK)
        ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + 1
        if len(new) < BLOCK_BYTES and block and not block.endswith(b"\n"):
            ends = np.append(ends, len(block))
        too_long = np.diff(ends, prepend=0, append=len(block)) > MAX_LINE_BYTES
        if too_long.any():
            raise CorpusError(
                f"{self.location}, line {self.lines + int(too_long.argmax()) + 1:,}: longer than "
                f"{MAX_LINE_BYTES:,} bytes after decompression, which no sentence is. Give a text "
                "file with a sentence or pair on each line, or remove the line, from both sides "
                "if there are two files."
            )
        self._block, self._ends, self._next = block, ends, 0
        self._tail = block[ends[-1] :] if len(ends) else block
        self.has_text = self.has_text or bool(block.strip())
        return len(ends) > 0


def cut_aligned(readers: Sequence[LineReader], examples_per_part: int) -> Iterator[AlignedLines]:
    """Yields lines of all while all have some; then counts the rest, for `check_alignment`."""
    aligned = True
    while aligned:
        part: list[list[Lines]] = []
        examples = size = 0
        while examples < examples_per_part and size < PART_BYTES:
            # Few at a time, because the size of these lines' partners is known only then.
            first = readers[0].take(min(ALIGNED_STEP, examples_per_part - examples))
            others = [reader.take(first.count or 1, max_bytes=None) for reader in readers[1:]]
            aligned = first.count > 0 and all(lines.count == first.count for lines in others)
            if not aligned:
                break
            part.append([first, *others])
            examples += first.count
            size += sum(len(lines.data) for lines in part[-1])
        if part:
            yield AlignedLines(tuple(_joined(side) for side in zip(*part, strict=True)))
    for reader in readers:
        while reader.take(examples_per_part).count:
            pass


def _joined(parts: Sequence[Lines]) -> Lines:
    """Lines that follow one another."""
    count = sum(part.count for part in parts)
    data = b"".join(part.data for part in parts)
    return Lines(parts[0].location, parts[0].first, count, data)


def check_alignment(readers: Sequence[LineReader]) -> None:
    """Checks readers at their end.

    Raises:
        CorpusError: one has no text, or more lines than another.
    """
    for reader in readers:
        if not reader.has_text:
            raise CorpusError(
                f"{reader.location} is empty: {counted(reader.lines, 'line')} and none with text "
                "on it, at least one is needed. Give a file with one sentence a line."
            )
    first = readers[0]
    for other in readers[1:]:
        if first.lines != other.lines:
            longer = max(first, other, key=lambda reader: reader.lines)
            raise CorpusError(
                f"{first.location} has {counted(first.lines, 'line')} and {other.location} has "
                f"{other.lines:,}: line {min(first.lines, other.lines) + 1:,} of "
                f"{longer.location} has no partner. The n-th lines of both files must be "
                "translations of each other; give aligned files."
            )


def cut_file(
    stream: LocationStream, file_format: str, columns: Columns, examples_per_part: int
) -> Iterator[Content]:
    """Cuts a file that has all texts of its examples into parts.

    Raises:
        CorpusError: the file holds something that no part can be made of.
    """
    if file_format == "webdataset":
        yield from _cut_samples(stream, columns, examples_per_part)
        return
    reader = LineReader(stream)
    if file_format == "tsv":
        named = any(isinstance(c, str) for c in (*columns.texts, columns.of_score))
        numbers = TsvColumns.resolve(columns, reader.take(1) if named else None)
        make: Callable[[Lines], Content] = partial(TsvLines, columns=numbers)
    else:
        make = partial(JsonLines, columns=columns)
    while (lines := reader.take(examples_per_part)).count:
        yield make(lines)


def _cut_samples(
    stream: LocationStream, columns: Columns, examples_per_part: int
) -> Iterator[Samples]:
    samples: list[Sample] = []
    size = 0
    for sample in _read_samples(stream, columns):
        samples.append(sample)
        size += sum(map(len, sample.texts))
        if len(samples) == examples_per_part or size >= PART_BYTES:
            yield Samples(stream.location, tuple(samples))
            samples, size = [], 0
    if samples:
        yield Samples(stream.location, tuple(samples))


def _read_samples(stream: LocationStream, columns: Columns) -> Iterator[Sample]:
    """Reads one example a sample; holds the file's keys, to notice one that comes again."""
    texts = [str(column).lower() for column in columns.texts]
    score = None if columns.of_score is None else str(columns.of_score).lower()
    suffixes = {*texts, *([score] if score else [])}
    members = read_members(
        cast(BinaryIO, stream),
        archive=stream.location,
        decoded=suffixes,
        passed_over=lambda suffix: True,
        max_member_bytes=MAX_MEMBER_BYTES,
    )
    seen: set[str] = set()
    try:
        for key, group in groupby(members, key=lambda member: member.key):
            data = _data_by_suffix(stream.location, group)
            if key in seen or len(data) < len(suffixes):
                raise CorpusError(
                    f"{stream.location}, sample {key!r}: expected "
                    f"{listed(sorted([*texts, *([score] if score else [])]))} once "
                    f"and one after the other, found {listed(sorted(data))}"
                    f"{' for the second time' if key in seen else ''}. Write the sample whole, or "
                    "correct columns in the recipe."
                )
            seen.add(key)
            yield Sample(key, tuple(data[s] for s in texts), data[score] if score else None)
    except TarContentError as error:
        raise CorpusError(str(error)) from error


def _data_by_suffix(location: str, members: Iterator[Member]) -> dict[str, bytes]:
    data: dict[str, bytes] = {}
    for member in members:
        problem = ""
        if member.suffix in data:
            problem = "is there twice. Keep one of them"
        elif len(member.data) > MAX_LINE_BYTES:
            problem = (
                f"has {len(member.data):,} bytes, more than {MAX_LINE_BYTES:,}, which no sentence "
                "has. Remove the sample, or correct columns in the recipe"
            )
        if problem:
            raise CorpusError(f"{location}, sample {member.key!r}: {member.suffix} {problem}.")
        data[member.suffix] = member.data
    return data
