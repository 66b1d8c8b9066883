"""Recipe settings of labelled texts and tagged words.

`foundation.section` explains `identity` and the other change classes of fields.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from braceexpand import braceexpand
from pydantic import Field, field_validator, model_validator

from data_pipeline.config.corpus import LOCATION, Column
from data_pipeline.config.data import TESTS, TRAIN, HeldOutName
from data_pipeline.config.text import FORMATS, TextColumns, TextCorpusConfig, TextDataConfig
from foundation.location import Location
from foundation.section import REQUIRED, identity
from foundation.wording import counted, format_value, join_first, join_items

LABEL = "label"  # the field of a text's label, in shards
TAGS = "tags"  # the field of the tags of a text's words, in shards
# Tags that a corpus with `derived: case` gives to words; see
# `data_pipeline.corpora.tagged.case_of`.
CASES = ("lower", "title", "upper", "mixed")
LABELS_SHOWN = 20
_OUTSIDE = "O"
_BIO = re.compile(r"[BI]-.+")


class LabelledColumns(TextColumns):
    """Columns of a line, sample or row that hold its text and its label."""

    label: Column = identity("label", "the text's label")

    @property
    def texts(self) -> tuple[Column, ...]:
        return (self.text, self.label)

    @property
    def of_numbers(self) -> frozenset[Column]:
        return frozenset([self.label])


class LabelledCorpusConfig(TextCorpusConfig):
    """Corpus of texts with one label each."""

    own_formats: ClassVar[tuple[str, ...]] = ("text", "jsonl", "tsv", "webdataset")
    formats_by_name: ClassVar[Mapping[str, str]] = {**FORMATS, ".tsv": "tsv"}

    files: tuple[Location, ...] = identity(
        REQUIRED,
        "plain text with one label, or texts and labels as JSON lines, TSV, WebDataset tars or "
        f"Parquet: {LOCATION}; braces expand to several files: part-{{000..017}}.jsonl",
        min_length=1,
    )
    format: str | None = identity(
        None,
        "text, jsonl, tsv, webdataset, parquet or a registered format; if null, the suffixes of "
        "the files' names determine it: .txt, .jsonl, .tsv, .tar or .parquet",
    )
    columns: LabelledColumns = identity(
        LabelledColumns(),
        "columns of the text and the label. JSON lines: keys, with dots for nested objects; TSV: "
        "numbers from 0, or names if the first line is a header; WebDataset: member suffixes such "
        "as txt; Parquet: column names",
    )
    labels: tuple[str, ...] = identity(
        (), "for plain text: one label for each entry of files, which all its texts get"
    )

    @property
    def texts_of_files(self) -> tuple[tuple[str, ...], ...]:
        expanded = zip(self.files, self.labels, strict=False)
        return tuple((label,) for pattern, label in expanded for _ in braceexpand(pattern))

    @model_validator(mode="after")
    def _plain_text_has_labels(self) -> Self:
        wanted = len(self.files) if self.files_format == "text" else 0
        if len(self.labels) != wanted:
            raise ValueError(
                f"labels has {len(self.labels)} values ({join_items(self.labels)}), files has "
                f"{len(self.files)} and the format is {self.files_format}: give plain text a label "
                "for each entry of files, and remove labels for other formats, which have a label "
                "for each text"
            )
        return self

    @model_validator(mode="after")
    def _columns_have_numbers_in_tsv_alone(self) -> Self:
        columns = self.columns.model_dump()
        if self.files_format != "tsv" and any(isinstance(c, int) for c in columns.values()):
            raise ValueError(
                f"columns are {format_value(columns)}, but {self.files_format} has names, not "
                "numbers: set columns.text and columns.label to names"
            )
        return self


class LabelsDataConfig(TextDataConfig):
    """Settings that labelled texts and tagged words share."""

    labels: tuple[str, ...] = identity(
        REQUIRED,
        "all labels, in the order of the network's outputs; if the labels of words have the form "
        "O, B-X, I-X, spans are scored, too",
        min_length=2,
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_are_texts(cls, given: Any) -> Any:
        for label in given if isinstance(given, list | tuple) else ():
            if isinstance(label, bool | int | float):
                raise ValueError(
                    f"YAML does not read {format_value(label)} as text: put the label in quotes, "
                    f'such as "{format_value(label)}". If you wrote yes or no, quote that word'
                )
        return given

    @model_validator(mode="after")
    def _labels_are_distinct_words(self) -> Self:
        for label in self.labels:
            if self.labels.count(label) > 1:
                raise ValueError(f"labels has {label!r} twice: list each label once")
            if label != label.strip() or not label.isprintable() or not label:
                raise ValueError(
                    f"labels has {label!r}, but a label must be one line of text without spaces "
                    "around it: correct it"
                )
            form = self.cleaning.normalise
            if form is not None and unicodedata.normalize(form, label) != label:
                raise ValueError(
                    f"labels has {label!r}, which cleaning.normalise={form} changes: write it as "
                    f"{unicodedata.normalize(form, label)!r} in labels and in the corpora"
                )
        return self


class LabelledDataConfig(LabelsDataConfig):
    """Settings of a dataset of texts with one label each."""

    train: tuple[LabelledCorpusConfig, ...] = TRAIN
    validation: LabelledCorpusConfig = Field(
        description="held-out texts that are scored while training"
    )
    tests: Mapping[HeldOutName, LabelledCorpusConfig] = TESTS

    def problem_of(self, texts: Sequence[str]) -> str | None:
        return unknown_label(texts[1], self.labels, "label")

    @model_validator(mode="after")
    def _labels_of_files_are_known(self) -> Self:
        for corpus in (*self.train, self.validation, *self.tests.values()):
            for label in corpus.labels:
                if problem := unknown_label(label, self.labels, "label"):
                    raise ValueError(f"in the files {join_items(corpus.files)}, {problem}")
        return self


class TaggedColumns(TextColumns):
    """Columns of a line, sample or row that hold its words and their tags."""

    text: Column = identity("words", "the words")
    tags: Column = identity("tags", "their tags, one for each word")

    @property
    def texts(self) -> tuple[Column, ...]:
        return (self.text, self.tags)


class TaggedCorpusConfig(TextCorpusConfig):
    """Corpus of sentences with one tag for each word."""

    noun: ClassVar[str] = "sentence"
    own_formats: ClassVar[tuple[str, ...]] = ("conll", "jsonl", "text")
    formats_by_name: ClassVar[Mapping[str, str]] = {
        **{".txt": "text", ".jsonl": "jsonl"},
        **dict.fromkeys((".conll", ".conllu", ".bio", ".iob2"), "conll"),
    }
    cut_formats: ClassVar[tuple[str, ...]] = ("conll", "jsonl", "text")

    files: tuple[Location, ...] = identity(
        REQUIRED,
        "one word with its tag per line, and blank lines between sentences (CoNLL), or JSON lines "
        f"with lists of both: {LOCATION}; braces expand to several files: part-{{000..017}}.jsonl",
        min_length=1,
    )
    format: str | None = identity(
        None,
        "conll, jsonl or text; if null, the suffixes of the files' names determine it: .conll, "
        ".conllu, .bio, .iob2, .jsonl or .txt",
    )
    columns: TaggedColumns = identity(
        TaggedColumns(),
        "columns of the words and the tags. JSON lines: keys of two lists, with dots for nested "
        "objects; CoNLL: numbers of columns from 0, or by default the first and the last column",
    )
    derived: Literal["case"] | None = identity(
        None,
        "for plain text: source of the words' tags. case: words are lower-cased, and each word's "
        f"tag is its original case: {join_items(CASES)}",
    )

    @model_validator(mode="after")
    def _tags_come_from_somewhere(self) -> Self:
        if (self.files_format == "text") != (self.derived is not None):
            raise ValueError(
                f"derived is {format_value(self.derived)} and the format is {self.files_format}: "
                "set derived: case for plain text, which has no tags, and remove derived for other "
                "formats"
            )
        if self.columns.score is not None:
            raise ValueError(
                f"columns.score is {format_value(self.columns.score)}, but tagged sentences cannot "
                "have scores: remove columns.score"
            )
        return self

    @model_validator(mode="after")
    def _formats_are_read_here(self) -> Self:
        if self.files_format not in self.own_formats:
            raise ValueError(
                f"format is {self.files_format!r}, but words with tags can only be read from "
                f"{join_items(self.own_formats)}: set format to one of these"
            )
        return self

    @model_validator(mode="after")
    def _columns_fit_the_format(self) -> Self:
        for name, column in (("text", self.columns.text), ("tags", self.columns.tags)):
            as_it_is = column == TaggedColumns.model_fields[name].default
            if not as_it_is and (self.files_format == "conll") != isinstance(column, int):
                raise ValueError(
                    f"columns.{name} is {column!r} and the format is {self.files_format}: give a "
                    "column number from 0 for CoNLL, or a key for JSON lines"
                )
        return self


class TaggedDataConfig(LabelsDataConfig):
    """Settings of a dataset of sentences with one tag for each word."""

    train: tuple[TaggedCorpusConfig, ...] = TRAIN
    validation: TaggedCorpusConfig = Field(
        description="held-out sentences that are scored while training"
    )
    tests: Mapping[HeldOutName, TaggedCorpusConfig] = TESTS

    @property
    def has_spans(self) -> bool:
        """True if the tags mark where spans begin and continue (Ramshaw and Marcus 1995; BIO)."""
        others = [label for label in self.labels if label != _OUTSIDE]
        return len(others) < len(self.labels) and all(map(_BIO.fullmatch, others))

    def problem_of(self, texts: Sequence[str]) -> str | None:
        words, tags = (text.split(" ") if text else [] for text in texts)
        if len(words) != len(tags):
            found_words = f"{counted(len(words), 'word')} and {counted(len(tags), 'tag')}"
            return f"expected a tag for each word, found {found_words}"
        found = (unknown_label(tag, self.labels, "tag") for tag in tags)
        return next(filter(None, found), None)

    @model_validator(mode="after")
    def _tags_and_words_stay_as_they_are(self) -> Self:
        if blank := [label for label in self.labels if len(label.split()) != 1]:
            raise ValueError(
                f"labels has {blank[0]!r}, but a tag must not contain spaces: rename it"
            )
        if self.cleaning.normalise is not None:
            raise ValueError(
                f"cleaning.normalise is {self.cleaning.normalise}, which can split a word in two: "
                "remove this setting, and normalise the words beforehand"
            )
        return self

    @model_validator(mode="after")
    def _all_cases_have_a_tag(self) -> Self:
        corpora = (*self.train, self.validation, *self.tests.values())
        missing = [case for case in CASES if case not in self.labels]
        if missing and any(corpus.derived for corpus in corpora):
            raise ValueError(
                f"labels are {join_items(self.labels)}, but derived: case gives words the tags "
                f"{join_items(CASES)}: add {join_items(missing)} to labels"
            )
        return self


def unknown_label(label: str, known: Sequence[str], noun: str) -> str | None:
    """Return the problem if `label` is not one of the `known` labels, or None if it is."""
    if label in known:
        return None
    shown = join_first(known, LABELS_SHOWN)
    return (
        f"the {noun} {label[:80]!r} is not in data.labels, which has {shown}. Correct the {noun}, "
        "or add it to data.labels"
    )
