"""Sentences with one tag for each word, parsed from parts of files.

    CoNLL: one word and its tag per line ─▶ ConllSentences ─┐
    {"words": […], "tags": […]} per line ─▶ TaggedLines ────┼─▶ Example(("the words", "their tags"))
    plain text, with the case as tag ─────▶ CasedWords ─────┘

Neither words nor tags contain spaces. The words of an example are joined by single spaces, and so
are its tags. The n-th tag belongs to the n-th word.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from data_pipeline.config.corpus import Column
from data_pipeline.corpora.documents import BLANKS, paragraphs
from data_pipeline.corpora.formats import DerivedContent, Example, LinesContent, bad_value
from data_pipeline.corpora.json_values import parse_json, shown, value_at
from data_pipeline.errors import CorpusError
from foundation.wording import counted

LAST = -1


@dataclass(frozen=True)
class ConllSentences(LinesContent):
    """Sentences with blank lines between them, each line with columns between tabs or spaces."""

    word: int  # number of the words' column, from 0, or LAST; `tag` likewise
    tag: int

    def examples(self) -> Iterator[Example]:
        for sentence in paragraphs(self.lines.text()):
            pairs = [self._columns(number, line) for number, line in sentence]
            words, tags = (" ".join(pair[side] for pair in pairs) for side in (0, 1))
            yield Example((words, tags), None)

    def place(self, number: int) -> str:
        first = list(paragraphs(self.lines.text()))[number][0][0]
        return f"{self.lines.place(first)} and following lines"

    def _columns(self, number: int, line: str) -> tuple[str, str]:
        found = line.strip(BLANKS).split("\t" if "\t" in line else None)
        needed = max(self.word, self.tag, 1) + 1
        if len(found) < needed:
            raise CorpusError(
                f"{self.lines.place(number)}: expected at least {needed} columns between tabs or "
                f"spaces, a word and its tag among them, found {len(found)} in {line[:80]!r}. "
                "Correct the line, put a blank line between sentences, or correct columns in the "
                "recipe."
            )
        try:
            return one_word(found[self.word], "word"), one_word(found[self.tag], "tag")
        except ValueError as error:
            raise bad_value(self.lines.place(number), error) from error


@dataclass(frozen=True)
class TaggedLines(LinesContent):
    """JSON lines with a list of words and a list of tags of the same length."""

    words: Column
    tags: Column

    def examples(self) -> Iterator[Example]:
        for number, line in enumerate(self.lines.decode()):
            try:
                value = parse_json(line)
                words, tags = (_list_at(value, column) for column in (self.words, self.tags))
                if len(words) != len(tags):
                    raise ValueError(
                        f"expected a tag for each word, found {counted(len(words), 'word')} "
                        f"and {counted(len(tags), 'tag')}"
                    )
                yield Example((" ".join(words), " ".join(tags)), None)
            except ValueError as error:
                raise bad_value(self.place(number), error) from error


@dataclass(frozen=True)
class CasedWords(DerivedContent):
    """Lower-cased words of plain text, tagged with their original case."""

    def examples(self) -> Iterator[Example]:
        for example in self.content.examples():
            words = example.texts[0].split()
            tags = " ".join(map(case_of, words))
            yield Example((" ".join(map(str.lower, words)), tags), None)


def case_of(word: str) -> str:
    """Return the case of a word: lower, title, upper or mixed.

    If a word has a single letter and it is upper-case, its case is title.
    """
    cased = [letter for letter in word if letter.lower() != letter.upper()]
    upper = [letter != letter.lower() for letter in cased]
    if not any(upper):
        return "lower"
    if not any(upper[1:]):
        return "title"
    return "upper" if all(upper) else "mixed"


def one_word(text: str, noun: str) -> str:
    """Return a word or tag unchanged after checking it.

    Raises:
        ValueError: it is empty, or contains a space.
    """
    if len(text.split()) != 1 or text != text.strip():
        raise ValueError(f"expected a {noun} without spaces, found {shown(text)}")
    text.encode()  # raises for a lone surrogate, which JSON's escapes allow
    return text


def _list_at(value: object, column: Column) -> list[str]:
    found = value_at(value, column)
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ValueError(f"expected a list of strings at {column!r}, found {shown(found)}")
    return [one_word(item, "word or tag") for item in found]
