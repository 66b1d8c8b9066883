"""Corpus formats: from raw parts of files to pairs of sentences, in whatever process.

    Chunk: whole lines or samples, as bytes ──decode, split by the format──▶ [Pair, Pair, …]

AlignedLines  two files, the n-th line of one is the translation of the n-th line of the other
TsvLines      columns between tabs; quotes have no meaning, so no value can hold a tab
JsonLines     one JSON object a line; a dot in a column's name leads into an inner object
Samples       UTF-8 files in a WebDataset tar, one pair a sample

Lines end at \\n alone: other characters that Unicode calls line ends occur inside sentences, and
splitting there would shift the alignment of everything that follows. A dataset stores one sentence
a line, so a line end after a sentence is removed, and \\n, \\r and \\t inside become spaces (a tab
in aligned lines, which is no separator there, stays).
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from data_pipeline.corpus_config import Column, ColumnsConfig
from data_pipeline.errors import CorpusError

SPACES = str.maketrans("\n\r\t", "   ")


class Pair(NamedTuple):
    """Two sentences without line ends that are translations of each other."""

    source: str
    target: str
    score: float | None


@dataclass(frozen=True)
class Lines:
    """Whole lines of one file, undecoded. The last one may lack its \\n."""

    location: str
    first: int  # number of the first line in the file, from 1
    count: int
    data: bytes

    def decode(self) -> list[str]:
        """The lines without \\n or \\r\\n.

        Raises:
            CorpusError: a line is not UTF-8.
        """
        try:
            text = self.data.decode()
        except UnicodeDecodeError as error:
            start = self.data.rfind(b"\n", 0, error.start) + 1
            line = self.first + self.data.count(b"\n", 0, start)
            raise CorpusError(
                f"{self.location}, line {line:,}: the byte 0x{self.data[error.start]:02x}, number "
                f"{error.start - start + 1:,} of the line, is not UTF-8 ({error.reason}). Convert "
                "the file, for example with iconv, or remove the line, from both sides if there "
                "are two files."
            ) from error
        text = text.replace("\r\n", "\n").removesuffix("\n")
        # Another \r stands within a line, unless the last line ends in it.
        return text.removesuffix("\r").replace("\r", " ").split("\n")


@dataclass(frozen=True)
class AlignedLines:
    """Lines of two files, as many of the one as of the other."""

    sources: Lines
    targets: Lines

    @property
    def count(self) -> int:
        return self.sources.count

    def pairs(self) -> Iterator[Pair]:
        for source, target in zip(self.sources.decode(), self.targets.decode(), strict=True):
            yield Pair(source, target, None)


@dataclass(frozen=True)
class TsvColumns:
    """The columns of a line's values, from 0."""

    source: int
    target: int
    score: int | None

    @classmethod
    def resolve(cls, columns: ColumnsConfig, header: Lines | None) -> "TsvColumns":
        """Looks names up in the first line.

        Raises:
            CorpusError: a name is not there exactly once.
        """
        names = header.decode()[0].split("\t") if header else []

        def number_of(column: Column) -> int:
            if isinstance(column, int):
                return column
            if names.count(column) != 1:
                assert header is not None, "names are looked up in a header"
                raise CorpusError(
                    f"{header.location}, line 1: expected one column named {column!r}, found "
                    f"{names.count(column)} among {names}. Correct columns in the recipe, or "
                    "number all of them from 0 if the file has no line of names."
                )
            return names.index(column)

        return cls(
            number_of(columns.source),
            number_of(columns.target),
            None if columns.score is None else number_of(columns.score),
        )


@dataclass(frozen=True)
class TsvLines:
    lines: Lines
    columns: TsvColumns

    @property
    def count(self) -> int:
        return self.lines.count

    def pairs(self) -> Iterator[Pair]:
        source, target, score = self.columns.source, self.columns.target, self.columns.score
        for number, line in enumerate(self.lines.decode(), self.lines.first):
            values = line.split("\t")
            try:
                text = values[score] if score is not None else None
                yield Pair(values[source], values[target], None if text is None else _score(text))
            except IndexError:
                needed = max(source, target, score or 0) + 1
                raise CorpusError(
                    f"{self.lines.location}, line {number:,}: expected at least {needed} columns "
                    f"between tabs, found {len(values)}. Correct the line, or columns in the "
                    "recipe."
                ) from None
            except ValueError as error:
                raise _bad_value(f"{self.lines.location}, line {number:,}", error) from error


@dataclass(frozen=True)
class JsonLines:
    lines: Lines
    columns: ColumnsConfig

    @property
    def count(self) -> int:
        return self.lines.count

    def pairs(self) -> Iterator[Pair]:
        columns = self.columns
        for number, line in enumerate(self.lines.decode(), self.lines.first):
            try:
                value = _parse_json(line)
                yield Pair(
                    _sentence(_text_at(value, columns.source)),
                    _sentence(_text_at(value, columns.target)),
                    None if columns.score is None else _score(_value_at(value, columns.score)),
                )
            except ValueError as error:
                raise _bad_value(f"{self.lines.location}, line {number:,}", error) from error


class Sample(NamedTuple):
    """The undecoded members of a WebDataset sample that a pair is made of."""

    key: str
    source: bytes
    target: bytes
    score: bytes | None = None


@dataclass(frozen=True)
class Samples:
    location: str
    samples: tuple[Sample, ...]

    @property
    def count(self) -> int:
        return len(self.samples)

    def pairs(self) -> Iterator[Pair]:
        for sample in self.samples:
            try:
                yield Pair(
                    _sentence(sample.source.decode()),
                    _sentence(sample.target.decode()),
                    None if sample.score is None else _score(sample.score.decode()),
                )
            except ValueError as error:
                raise _bad_value(f"{self.location}, sample {sample.key!r}", error) from error


Content = AlignedLines | TsvLines | JsonLines | Samples


@dataclass(frozen=True)
class Chunk:
    """Consecutive pairs of a corpus, not parsed yet; it crosses process borders as it is."""

    first: int  # position of its first pair in the corpus, from 0
    content: Content


def parse(chunk: Chunk) -> list[Pair]:
    """The pairs in their order.

    Raises:
        CorpusError: a pair is wrong; the message names file and line.
    """
    return list(chunk.content.pairs())


def _bad_value(place: str, error: ValueError) -> CorpusError:
    return CorpusError(f"{place}: {error}. Correct it there, or columns in the recipe.")


def _sentence(text: str) -> str:
    text = text.removesuffix("\n").removesuffix("\r")
    if "\n" in text or "\r" in text or "\t" in text:
        return text.translate(SPACES)
    return text


def _score(value: object) -> float:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            score = float(value)
        except (ValueError, OverflowError):
            score = math.nan
        if math.isfinite(score):
            return score
    raise ValueError(f"expected a number as score, found {_shown(value)}")


def _parse_json(line: str) -> object:
    try:
        return json.loads(line)
    # Python refuses integers of thousands of digits with ValueError.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a JSON object, found {_shown(line)} ({error})") from error


def _value_at(value: Any, column: Column) -> object:
    for key in str(column).split("."):
        if not isinstance(value, dict):
            raise ValueError(f"expected an object with the key {key!r}, found {_shown(value)}")
        if key not in value:
            raise ValueError(
                f"expected the key {key!r} of {column!r}, found {_shown(sorted(value))}"
            )
        value = value[key]
    return value


def _text_at(value: object, column: Column) -> str:
    text = _value_at(value, column)
    if not isinstance(text, str):
        raise ValueError(f"expected a string at {column!r}, found {_shown(text)}")
    text.encode()  # raises for half a surrogate pair, which JSON's escapes allow
    return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
