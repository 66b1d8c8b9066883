"""Corpus formats, which parse raw parts of files into the texts of examples, in any process.

    Chunk: whole lines or samples, as bytes ──decode, split by the format──▶ [Example, …]

AlignedLines  several files, whose n-th lines are translations of each other
TsvLines      columns between tabs; quotes have no meaning, so no value can hold a tab
JsonLines     one JSON object per line; a dot in a column's name descends into a nested object
Samples       UTF-8 files in a WebDataset tar, one example per sample
ReadExamples  examples that a registered reader has read from a file
WithTexts     another format's part whose examples all have additional texts, such as a label

documents.py handles plain text, and tagged.py handles words with tags.

Lines end only at \\n, or only at \\r in a file without \\n. Sentences may contain other characters
that Unicode calls line ends, and splitting there would shift the alignment of all following lines.
A dataset stores one sentence per line. A line end after a sentence is therefore removed, and each
\\n, \\r and \\t inside it becomes a space. There is one exception: in aligned files, a tab is kept,
because it separates nothing there. A document keeps its line ends, but \\r\\n becomes \\n.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from data_pipeline.config.corpus import Column, Columns
from data_pipeline.corpora.json_values import parse_json, shown, text_at, value_at
from data_pipeline.errors import CorpusError

SPACES = str.maketrans("\n\r\t", "   ")


T = TypeVar("T")

# Function that returns the problem with an example's texts, including the remedy, or None if there
# is no problem.
ProblemOf = Callable[[Sequence[str]], str | None]


class Example(NamedTuple):
    """Example of a task, such as a pair of sentences or a document."""

    texts: tuple[str, ...]  # in the order of the task's fields
    score: float | None


@dataclass(frozen=True)
class ChunkLines:
    """Whole lines of one file, not decoded yet; the last one may lack its line end."""

    location: str
    first: int  # number of the first line in the file, from 1
    count: int
    data: bytes

    def decode(self) -> list[str]:
        r"""Return the lines without \n or \r\n.

        Raises:
            CorpusError: a line is not UTF-8.
        """
        text = self.text().removesuffix("\n")
        # Only the last line can still end with \r. Any other \r is inside a line.
        return text.removesuffix("\r").replace("\r", " ").split("\n")

    def text(self) -> str:
        r"""Return the lines as one text, with \n after each.

        Raises:
            CorpusError: a line is not UTF-8.
        """
        try:
            return self.data.decode().replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            start = self.data.rfind(b"\n", 0, error.start) + 1
            line = self.first + self.data.count(b"\n", 0, start)
            raise CorpusError(
                f"{self.location}, line {line:,}: the byte 0x{self.data[error.start]:02x}, number "
                f"{error.start - start + 1:,} of the line, is not UTF-8 ({error.reason}). Convert "
                "the file, for example with iconv, or remove the line, from both sides if there "
                "are two files."
            ) from error

    def place(self, number: int) -> str:
        """Return the location of a line for messages; `number` counts from 0."""
        return f"{self.location}, line {self.first + number:,}"


@dataclass(frozen=True)
class AlignedLines:
    """Lines of several files, the same number of each."""

    sides: tuple[ChunkLines, ...]  # in the order of the task's fields

    @property
    def count(self) -> int:
        return self.sides[0].count

    def examples(self) -> Iterator[Example]:
        for texts in zip(*(side.decode() for side in self.sides), strict=True):
            yield Example(texts, None)

    def place(self, number: int) -> str:
        return self.sides[0].place(number)


@dataclass(frozen=True)
class LinesContent:
    """Base of the formats in which each line is an example."""

    lines: ChunkLines

    @property
    def count(self) -> int:
        return self.lines.count

    def place(self, number: int) -> str:
        return self.lines.place(number)


@dataclass(frozen=True)
class TsvColumns:
    """Numbers, from 0, of the columns that contain an example's texts and its score."""

    texts: tuple[int, ...]
    score: int | None

    @classmethod
    def resolve(cls, columns: Columns, header: ChunkLines | None) -> "TsvColumns":
        """Replace the names of columns by their numbers.

        Args:
            header: the first line, which contains the names; None if all columns have numbers.

        Raises:
            CorpusError: a name does not occur exactly once.
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

        score = columns.of_score
        return cls(
            tuple(number_of(column) for column in columns.texts),
            None if score is None else number_of(score),
        )


@dataclass(frozen=True)
class TsvLines(LinesContent):
    columns: TsvColumns

    def examples(self) -> Iterator[Example]:
        texts, score = self.columns.texts, self.columns.score
        for number, line in enumerate(self.lines.decode(), self.lines.first):
            values = line.split("\t")
            try:
                found = values[score] if score is not None else None
                yield Example(
                    tuple([values[column] for column in texts]),
                    None if found is None else read_score(found),
                )
            except IndexError:
                needed = max(*texts, score or 0) + 1
                raise CorpusError(
                    f"{self.lines.location}, line {number:,}: expected at least {needed} columns "
                    f"between tabs, found {len(values)}. Correct the line, or columns in the "
                    "recipe."
                ) from None
            except ValueError as error:
                raise bad_value(f"{self.lines.location}, line {number:,}", error) from error


@dataclass(frozen=True)
class JsonLines(LinesContent):
    columns: Columns
    are_documents: bool = False

    def examples(self) -> Iterator[Example]:
        texts, score = self.columns.texts, self.columns.of_score
        of_numbers = self.columns.of_numbers
        cleared = document if self.are_documents else sentence
        for number, line in enumerate(self.lines.decode(), self.lines.first):
            try:
                value = parse_json(line)
                yield Example(
                    tuple([cleared(text_at(value, column, of_numbers)) for column in texts]),
                    None if score is None else read_score(value_at(value, score)),
                )
            except ValueError as error:
                raise bad_value(f"{self.lines.location}, line {number:,}", error) from error


class CorpusSample(NamedTuple):
    """Members of a WebDataset sample that make up an example, not decoded yet."""

    key: str
    texts: tuple[bytes, ...]
    score: bytes | None = None


@dataclass(frozen=True)
class Samples:
    location: str
    samples: tuple[CorpusSample, ...]
    are_documents: bool = False

    @property
    def count(self) -> int:
        return len(self.samples)

    def examples(self) -> Iterator[Example]:
        cleared = document if self.are_documents else sentence
        for sample in self.samples:
            try:
                yield Example(
                    tuple([cleared(text.decode()) for text in sample.texts]),
                    None if sample.score is None else read_score(sample.score.decode()),
                )
            except ValueError as error:
                raise bad_value(f"{self.location}, sample {sample.key!r}", error) from error

    def place(self, number: int) -> str:
        return f"{self.location}, sample {self.samples[number].key!r}"


@dataclass(frozen=True)
class ReadExamples:
    read: tuple[Example, ...]
    are_documents: bool = False
    location: str = ""
    first: int = 1  # number of the first example in its file, from 1

    @property
    def count(self) -> int:
        return len(self.read)

    def examples(self) -> Iterator[Example]:
        cleared = document if self.are_documents else sentence
        for example in self.read:
            yield Example(tuple([cleared(text) for text in example.texts]), example.score)

    def place(self, number: int) -> str:
        return f"{self.location}, example {self.first + number:,}"


class Content(Protocol):
    """Raw part of a corpus; `examples` parses it."""

    @property
    def count(self) -> int: ...

    def examples(self) -> Iterator[Example]: ...

    def place(self, number: int) -> str:
        """Return the location of an example for messages; `number` counts from 0."""


@dataclass(frozen=True)
class DerivedContent:
    """Base of parts of a corpus whose examples are derived from the examples of another part."""

    content: Content

    @property
    def count(self) -> int:
        return self.content.count

    def place(self, number: int) -> str:
        return self.content.place(number)


@dataclass(frozen=True)
class WithTexts(DerivedContent):
    """Part of a corpus whose examples all get the same additional texts, after their own texts."""

    more: tuple[str, ...]

    def examples(self) -> Iterator[Example]:
        for example in self.content.examples():
            yield Example((*example.texts, *self.more), example.score)


@dataclass(frozen=True)
class Chunk:
    """Consecutive examples of a corpus, not parsed yet; sent to other processes in this form."""

    first: int  # position of its first example in the corpus, from 0
    content: Content


def parse(chunk: Chunk, problem_of: ProblemOf | None = None) -> list[Example]:
    """Return the examples of a chunk in order.

    Args:
        problem_of: see `ProblemOf`; None skips this check.

    Raises:
        CorpusError: an example is invalid; the message names its location.
    """
    examples = list(chunk.content.examples())
    if problem_of is not None:
        for number, example in enumerate(examples):
            if problem := problem_of(example.texts):
                raise CorpusError(f"{chunk.content.place(number)}: {problem}.")
    return examples


def in_parts(
    items: Iterable[T], most: int, most_size: int, size: Callable[[T], int]
) -> Iterator[list[T]]:
    """Group consecutive items; a group ends at `most` items or at a total of `most_size`."""
    part: list[T] = []
    total = 0
    for item in items:
        part.append(item)
        total += size(item)
        if len(part) == most or total >= most_size:
            yield part
            part, total = [], 0
    if part:
        yield part


def characters(example: Example) -> int:
    """Return the number of characters of an example's texts."""
    return sum(map(len, example.texts))


def bad_value(place: str, error: ValueError) -> CorpusError:
    """Return the error for an invalid example, with the remedy."""
    return CorpusError(f"{place}: {error}. Correct the corpus, or columns in the recipe.")


def document(text: str) -> str:
    """Return a document in the form that a dataset stores."""
    return text.replace("\r\n", "\n")


def sentence(text: str) -> str:
    """Return a sentence in the form that a dataset stores: on one line, without tabs."""
    text = text.removesuffix("\n").removesuffix("\r")
    if "\n" in text or "\r" in text or "\t" in text:
        return text.translate(SPACES)
    return text


def read_score(value: object) -> float:
    """Return the number that a value represents.

    Raises:
        ValueError: the value is not a finite number.
    """
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            score = float(value)
        except (ValueError, OverflowError):
            score = math.nan
        if math.isfinite(score):
            return score
    raise ValueError(f"expected a number as score, found {shown(value)}")
