"""Corpus formats: from raw parts of files to the texts of examples, in whatever process.

    Chunk: whole lines or samples, as bytes ──decode, split by the format──▶ [Example, …]

AlignedLines  several files, whose n-th lines belong together: translations of each other
TsvLines      columns between tabs; quotes have no meaning, so no value can hold a tab
JsonLines     one JSON object a line; a dot in a column's name leads into an inner object
Samples       UTF-8 files in a WebDataset tar, one example a sample
ReadExamples  what a reader of `readers.py` has made of a file
WithTexts     another format's part, all examples of which have some texts more, as a label

documents.py has plain text, tagged.py words with tags.

Lines end at \\n alone: other characters that Unicode calls line ends occur inside sentences, and
splitting there would shift the alignment of everything that follows. A dataset stores one sentence
a line, so a line end after a sentence is removed, and \\n, \\r and \\t inside become spaces (a tab
in aligned lines, which is no separator there, stays). A document keeps its line ends, and \\r\\n
becomes \\n.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from data_pipeline.config.corpus import Column, Columns
from data_pipeline.corpora.json_values import parse_json, shown, text_at, value_at
from data_pipeline.errors import CorpusError

SPACES = str.maketrans("\n\r\t", "   ")


# What is wrong with texts of an example that could be read, with the remedy; None if nothing is.
ProblemOf = Callable[[Sequence[str]], str | None]


class Example(NamedTuple):
    """What a task has one of: a pair of sentences, a document."""

    texts: tuple[str, ...]  # in the order of the task's fields
    score: float | None


@dataclass(frozen=True)
class ChunkLines:
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
        text = self.text().removesuffix("\n")
        # Another \r stands within a line, unless the last line ends in it.
        return text.removesuffix("\r").replace("\r", " ").split("\n")

    def text(self) -> str:
        """The lines as one text, with \\n after each.

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
        """Where a line is, for messages; the first is 0."""
        return f"{self.location}, line {self.first + number:,}"


@dataclass(frozen=True)
class AlignedLines:
    """Lines of several files, of each as many as of the others."""

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
class TsvColumns:
    """The columns of a line's values, from 0."""

    texts: tuple[int, ...]
    score: int | None

    @classmethod
    def resolve(cls, columns: Columns, header: ChunkLines | None) -> "TsvColumns":
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

        score = columns.of_score
        return cls(
            tuple(number_of(column) for column in columns.texts),
            None if score is None else number_of(score),
        )


@dataclass(frozen=True)
class TsvLines:
    lines: ChunkLines
    columns: TsvColumns

    @property
    def count(self) -> int:
        return self.lines.count

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

    def place(self, number: int) -> str:
        return self.lines.place(number)


@dataclass(frozen=True)
class JsonLines:
    lines: ChunkLines
    columns: Columns
    are_documents: bool = False

    @property
    def count(self) -> int:
        return self.lines.count

    def place(self, number: int) -> str:
        return self.lines.place(number)

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
    """The undecoded members of a WebDataset sample that an example is made of."""

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
    first: int = 1  # the number of the first one in its file, from 1

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
    """A raw part of a corpus."""

    @property
    def count(self) -> int: ...

    def examples(self) -> Iterator[Example]: ...

    def place(self, number: int) -> str:
        """Where the example of that number is, for messages; the first is 0."""


@dataclass(frozen=True)
class WithTexts:
    """A part of which all examples have some texts more, after their own."""

    content: Content
    more: tuple[str, ...]

    @property
    def count(self) -> int:
        return self.content.count

    def examples(self) -> Iterator[Example]:
        for example in self.content.examples():
            yield Example((*example.texts, *self.more), example.score)

    def place(self, number: int) -> str:
        return self.content.place(number)


@dataclass(frozen=True)
class Chunk:
    """Consecutive examples of a corpus, not parsed yet; it crosses process borders as it is."""

    first: int  # position of its first example in the corpus, from 0
    content: Content


def parse(chunk: Chunk, problem_of: ProblemOf | None = None) -> list[Example]:
    """The examples in their order.

    Args:
        problem_of: see `ProblemOf`; None: nothing is.

    Raises:
        CorpusError: an example is wrong; the message names file and line.
    """
    examples = list(chunk.content.examples())
    if problem_of is not None:
        for number, example in enumerate(examples):
            if problem := problem_of(example.texts):
                raise CorpusError(f"{chunk.content.place(number)}: {problem}.")
    return examples


def bad_value(place: str, error: ValueError) -> CorpusError:
    """The error of an example that is wrong, with the remedy."""
    return CorpusError(f"{place}: {error}. Correct it there, or columns in the recipe.")


def document(text: str) -> str:
    """A document as a dataset has it."""
    return text.replace("\r\n", "\n")


def sentence(text: str) -> str:
    """A sentence as a dataset has it: on one line, which has no tab."""
    text = text.removesuffix("\n").removesuffix("\r")
    if "\n" in text or "\r" in text or "\t" in text:
        return text.translate(SPACES)
    return text


def read_score(value: object) -> float:
    """The number that a value says.

    Raises:
        ValueError: it says none.
    """
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            score = float(value)
        except (ValueError, OverflowError):
            score = math.nan
        if math.isfinite(score):
            return score
    raise ValueError(f"expected a number as score, found {shown(value)}")
