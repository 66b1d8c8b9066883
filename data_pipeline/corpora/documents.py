"""Documents of plain text: lines, paragraphs between blank lines, or whole files.

    a file ──cut at the boundaries of documents──▶ Documents ──decode, split──▶ [Example, …]

A document may have up to `MAX_DOCUMENT_BYTES`. Only a long document makes a chunk exceed its usual
size. A part of a file consists of the documents that begin in a given span of its bytes. Parts with
consecutive spans therefore contain every document exactly once and never cut one.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np

from data_pipeline.arrays import BoolArray
from data_pipeline.corpora.formats import ChunkLines, Content, Example
from data_pipeline.corpora.lines import WHOLE_FILE, LineReader
from data_pipeline.errors import CorpusError
from data_pipeline.storage.locations import LocationStream

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024  # maximum size of a document, decompressed
BLANKS = " \t\r\x0b\x0c"  # a line of only these characters is blank
_IS_BLANK = np.zeros(256, dtype=bool)
_IS_BLANK[[*BLANKS.encode(), ord("\n")]] = True

Borders = Literal["line", "blank_line", "file"]


@dataclass(frozen=True)
class Documents:
    """Whole documents, not decoded yet."""

    lines: ChunkLines
    borders: Borders
    count: int

    def examples(self) -> Iterator[Example]:
        text = self.lines.text()
        texts: Iterable[str] = [text]
        if self.borders == "line":
            texts = text.removesuffix("\n").split("\n")
        elif self.borders == "blank_line":
            texts = ("\n".join(line for _, line in lines) for lines in paragraphs(text))
        for part in texts:
            yield Example((part,), None)

    def place(self, number: int) -> str:
        first = self.lines.place(number if self.borders == "line" else 0)
        return first if self.borders == "line" else f"{first} and following lines"


def paragraphs(text: str) -> Iterator[list[tuple[int, str]]]:
    """Yield the lines between blank lines, as (line number from 0, line)."""
    lines = enumerate(text.removesuffix("\n").split("\n"))
    for is_blank, group in groupby(lines, lambda numbered: not numbered[1].strip(BLANKS)):
        if not is_blank:
            yield list(group)


@dataclass(frozen=True)
class CorpusFiles:
    """Files that are one document each."""

    files: tuple[Content, ...]

    @property
    def count(self) -> int:
        return len(self.files)

    def examples(self) -> Iterator[Example]:
        for file in self.files:
            yield from file.examples()

    def place(self, number: int) -> str:
        return self.files[number].place(0)


def read_file(stream: LocationStream, span: range = WHOLE_FILE) -> Documents:
    """Read a file, or those of its lines that begin in the span, as one document.

    Raises:
        CorpusError: the file is too long for a document.
    """
    reader = LineReader(stream, MAX_DOCUMENT_BYTES, span, returns_end_lines=False)
    lines = reader.take(sys.maxsize, MAX_DOCUMENT_BYTES + 1)
    if len(lines.data) > MAX_DOCUMENT_BYTES:
        raise _too_long(stream.location, lines.first)
    return Documents(lines, "file", 1)


def cut_lines(stream: LocationStream, span: range, documents_per_part: int) -> Iterator[Documents]:
    """Yield the lines of a file that begin in the span, each as a document."""
    reader = LineReader(stream, MAX_DOCUMENT_BYTES, span)
    while (lines := reader.take(documents_per_part)).count:
        yield Documents(lines, "line", lines.count)


def cut_paragraphs(
    stream: LocationStream, span: range, documents_per_part: int
) -> Iterator[Documents]:
    """Yield the paragraphs of a file that begin in the span.

    Raises:
        CorpusError: a paragraph is too long for a document.
    """
    reader = LineReader(stream, MAX_DOCUMENT_BYTES)
    held: list[bytes] = []  # data since the beginning of an unfinished paragraph
    before, first, in_paragraph = 0, 0, False
    while (lines := reader.take(documents_per_part)).count:
        begins, in_paragraph = _beginnings(lines, in_paragraph)
        begins = [begin for begin in begins if before + begin >= span.start]
        inside = [begin for begin in begins if before + begin < span.stop]
        is_last = len(inside) < len(begins)
        whole = len(inside) - (not is_last) + bool(held)  # number of paragraphs that end in `lines`
        if begins and (held or inside):
            start, stop = 0 if held else inside[0], begins[len(inside) if is_last else -1]
            first = first if held else _line_at(lines, start)
            if whole:
                data = b"".join([*held, lines.data[start:stop]])
                yield Documents(
                    ChunkLines(stream.location, first, whole, data), "blank_line", whole
                )
            held, first = [lines.data[stop:]], _line_at(lines, stop)
        elif held:
            held.append(lines.data)
        if is_last:
            return
        if sum(map(len, held)) > MAX_DOCUMENT_BYTES:
            raise _too_long(stream.location, first)
        before += len(lines.data)
    if held:
        yield Documents(ChunkLines(stream.location, first, 1, b"".join(held)), "blank_line", 1)


def _beginnings(lines: ChunkLines, in_paragraph: bool) -> tuple[list[int], bool]:
    """Return the offsets where paragraphs begin, and whether the last line is in a paragraph.

    Args:
        in_paragraph: whether the line before these lines is in a paragraph.
    """
    data = np.frombuffer(lines.data, dtype=np.uint8)
    ends = np.flatnonzero(data == ord("\n")) + 1
    starts = np.concatenate(([0], ends))[: lines.count]
    has_text: BoolArray = np.logical_or.reduceat(~_IS_BLANK[data], starts)
    begins = has_text & ~np.concatenate(([in_paragraph], has_text[:-1]))
    return starts[begins].tolist(), bool(has_text[-1])


def _line_at(lines: ChunkLines, start: int) -> int:
    """Return the number of the line that begins at the offset `start`."""
    return lines.first + lines.data.count(b"\n", 0, start)


def _too_long(location: str, line: int) -> CorpusError:
    return CorpusError(
        f"{location}, line {line:,}: the document that begins here is longer than "
        f"{MAX_DOCUMENT_BYTES:,} bytes, which is too much to hold in memory with its copies. Split "
        "the document, or set documents to line or blank_line."
    )


def span_of(share: tuple[float, float], size: int) -> range:
    """Return the byte range of a share of a file; a share that ends at 1 has no upper limit."""
    start, stop = share
    return range(int(start * size), sys.maxsize if stop == 1 else int(stop * size))
