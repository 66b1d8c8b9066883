"""Recipe settings of sentence pairs: their corpora, cleaning and lengths.

`foundation.section` explains `identity` and the other change classes of fields.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from data_pipeline.config.corpus import (
    LOCATION,
    CleaningConfig,
    Column,
    Columns,
    CorpusConfig,
    FilesConfig,
    NormaliseConfig,
    Sha256,
)
from data_pipeline.config.data import TESTS, TRAIN, CorporaConfig, DataConfig, HeldOutName
from foundation.location import Location
from foundation.section import REQUIRED, Section, execution, identity
from foundation.wording import format_value, join_items

FORMATS = {".tsv": "tsv", ".jsonl": "jsonl", ".tar": "webdataset"}
SOURCE, TARGET = "src", "tgt"  # the fields of a pair, in shards and batches


class PairColumns(Columns):
    """Columns of a line or sample that contain a pair's sentences."""

    source: Column = identity(0, "the source sentence")
    target: Column = identity(1, "the target sentence")
    score: Column | None = identity(None, "a quality score of the pair")

    @property
    def texts(self) -> tuple[Column, ...]:
        return (self.source, self.target)

    @property
    def of_score(self) -> Column | None:
        return self.score


class _AlignedFiles(Section):
    source: Location | None = identity(None, f"source sentences, one per line: {LOCATION}")
    target: Location | None = identity(None, f"target sentences, one per line: {LOCATION}")
    source_sha256: Sha256 | None = identity(None, "sha256 of the decompressed source text")
    target_sha256: Sha256 | None = identity(None, "sha256 of the decompressed target text")


class _Tag(FilesConfig):
    tag: str | None = identity(
        None,
        "a piece such as <2de>, <bt> or >>deu<< put before every source sentence, as in "
        "Johnson et al. 2017 and Caswell et al. 2019",
        pattern=r"^(<\S+>|>>\S+<<)$",
    )


class PairCorpusConfig(CorpusConfig, _Tag, _AlignedFiles):
    """Corpus of sentence pairs: two files aligned line by line, or files with both sides."""

    noun: ClassVar[str] = "pair"
    own_formats: ClassVar[tuple[str, ...]] = tuple(FORMATS.values())
    formats_by_name: ClassVar[Mapping[str, str]] = FORMATS
    _hash_keys: ClassVar[str] = "source_sha256 and target_sha256, or files_sha256,"

    files: tuple[Location, ...] = identity(
        (),
        "files that contain both sides, instead of source and target: TSV or JSON lines with one "
        "pair per line, or WebDataset tars with one pair per sample; braces name several files: "
        "part-{000..017}.tar",
    )
    format: str | None = identity(
        None,
        "tsv, jsonl, webdataset, parquet or a registered format; if null, the suffixes of the "
        "files' names determine it",
    )
    columns: PairColumns = identity(
        PairColumns(),
        "columns of the two sentences. TSV: numbers from 0, or names if the first line is a "
        "header; JSON lines: keys, with dots for nested objects; WebDataset: member suffixes such "
        "as en.txt",
    )
    min_score: float | None = identity(None, "drop pairs with a lower score")

    @property
    def locations(self) -> tuple[Location, ...]:
        """Location of every file: source and target, or `files` with their braces expanded."""
        if self.source is not None and self.target is not None:
            return (self.source, self.target)
        return super().locations

    @property
    def sha256s(self) -> tuple[str | None, ...]:
        """Sha256 that the recipe gives for each location, or None for a location without one."""
        if self.source is not None:
            return (self.source_sha256, self.target_sha256)
        return super().sha256s

    @property
    def tags(self) -> dict[str, str]:
        """Tag to put before every source sentence, under the key SOURCE; empty without a tag."""
        return {} if self.tag is None else {SOURCE: self.tag}

    def _check_form(self) -> None:
        if (self.source is None) != (self.target is None) or bool(self.files) == bool(self.source):
            raise ValueError(
                f"source is {format_value(self.source)}, target is {format_value(self.target)} and "
                f"files is {join_items(self.files)}: give either source and target, or files"
            )
        if self.files and (self.source_sha256 or self.target_sha256):
            raise ValueError(
                "source_sha256 or target_sha256 is set, but files are pinned by files_sha256: set "
                "files_sha256 instead"
            )
        of_files = {"files_sha256", "format", "columns", "min_score"}
        given = self.model_dump(include=of_files, exclude_defaults=True)
        if given and not self.files:
            raise ValueError(
                f"{', '.join(given)} can be set only with files, which is empty: set files, or "
                f"remove {', '.join(given)}"
            )

    @model_validator(mode="after")
    def _files_can_be_read(self) -> Self:
        if not self.files:
            return self
        self._require_one_format()
        columns = self.columns.model_dump()
        if self.files_format != "tsv" and any(isinstance(c, int) for c in columns.values()):
            raise ValueError(
                f"columns are {format_value(columns)}, but {self.files_format} has names, not "
                "numbers: set columns.source and columns.target to names, such as en and de"
            )
        self._require_score_and_minimum()
        return self


class _PairRules(NormaliseConfig):
    max_source_characters: int | None = identity(
        None, "maximum characters of a source sentence", gt=0
    )
    max_target_characters: int | None = identity(
        None, "maximum characters of a target sentence", gt=0
    )
    max_length_ratio: float | None = identity(
        None, "maximum ratio of the longer side's characters to the shorter side's", ge=1
    )
    drop_identical: bool = identity(False, "drop pairs whose sides are the same sentence")


class PairCleaningConfig(CleaningConfig, _PairRules):
    """Rules that drop pairs; a pair is reported under the first rule that drops it.

    Pairs with an empty side, or with more tokens than `data.max_source_length` or
    `data.max_target_length`, are always dropped.
    """

    drop_heldout: bool = identity(
        False, "drop training pairs that equal a pair of validation or tests"
    )

    @property
    def drops_heldout(self) -> bool:
        return self.drop_heldout


class _Languages(Section):
    source_language: str = identity(REQUIRED, "code of the source language, e.g. en", min_length=1)
    target_language: str = identity(REQUIRED, "code of the target language, e.g. de", min_length=1)


class _SentenceLengths(CorporaConfig):
    max_source_length: int = identity(
        256,
        "maximum tokens of a source sentence, EOS included; longer pairs are dropped and counted",
        ge=2,
    )
    max_target_length: int = identity(
        256,
        "maximum tokens of a target sentence, EOS included; longer pairs are dropped and counted",
        ge=2,
    )
    max_heldout_length: int = execution(
        1024,
        "maximum tokens of a sentence in validation and tests, EOS included; if the maximum for "
        "training is larger, that maximum applies. Held-out pairs are never dropped: a longer "
        "sentence causes an error with its line",
        ge=2,
    )


class PairDataConfig(DataConfig, _SentenceLengths, _Languages):
    """Settings of a dataset of sentence pairs."""

    train: tuple[PairCorpusConfig, ...] = TRAIN
    cleaning: PairCleaningConfig = PairCleaningConfig()
    validation: PairCorpusConfig = Field(
        description="held-out pairs that are scored while training"
    )
    tests: Mapping[HeldOutName, PairCorpusConfig] = TESTS


class TranslationDataConfig(PairDataConfig):
    """Settings of sentence pairs for translation, optionally with context sentences."""

    context_sentences: int = identity(
        0,
        "number of preceding sentences of the same document that are joined to each source "
        "sentence by ␞ (Tiedemann and Scherrer 2017); an empty line ends a document. All corpora "
        "must be aligned files",
        ge=0,
        le=16,
    )

    @property
    def sentences_before(self) -> int:
        return self.context_sentences

    @model_validator(mode="after")
    def _documents_have_an_order(self) -> Self:
        corpora = (*self.train, self.validation, *self.tests.values())
        others = [corpus.files[0] for corpus in corpora if corpus.files]
        if self.context_sentences and others:
            raise ValueError(
                f"context_sentences is {self.context_sentences}, but {join_items(others)} is not a "
                "pair of aligned files, in which the lines of a document are in order: set source "
                "and target instead of files"
            )
        return self


def require_joint_text(recipe: Any, why: str) -> None:
    """Check that a recipe encodes sentences of both languages in the same way.

    Args:
        recipe: the recipe of a task on pairs.
        why: the reason for this requirement, which the message quotes.

    Raises:
        ValueError: the languages have separate tokenizers, or a corpus has a tag.
    """
    if not recipe.tokenizer.joint:
        raise ValueError(f"tokenizer.joint is false, but {why}: set tokenizer.joint to true")
    for key, corpus in recipe.data.corpora.items():
        if corpus.tag is not None:
            raise ValueError(f"data.{key}.tag is {corpus.tag!r}, but {why}: remove this setting")
