"""What a recipe says about text that is no pairs: documents, how they are found and cleaned.

`data_pipeline.section` explains what a change of a field means.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from data_pipeline.config import DataConfig, HeldOutName, TokenizerConfig
from data_pipeline.corpus_config import (
    LOCATION,
    CleaningConfig,
    Column,
    Columns,
    CorpusConfig,
    name_suffix,
)
from data_pipeline.section import REQUIRED, identity
from data_pipeline.wording import said

TEXT = "text"  # the field of a document, in shards and batches

TextFormat = Literal["text", "jsonl", "webdataset", "parquet"]
FORMATS: dict[str, TextFormat] = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".tar": "webdataset",
    ".parquet": "parquet",
}


class TextColumns(Columns):
    """Where a line, sample or row has its text."""

    text: Column = identity("text", "the document")
    score: Column | None = identity(None, "a number that says how good the document is")

    @property
    def texts(self) -> tuple[Column, ...]:
        return (self.text,)

    @property
    def of_score(self) -> Column | None:
        return self.score


class TextCorpusConfig(CorpusConfig):
    """Documents."""

    noun: ClassVar[str] = "document"

    files: tuple[str, ...] = identity(
        REQUIRED,
        f"plain text, JSON lines, WebDataset tars or Parquet: {LOCATION}; braces stand for "
        "several: part-{000..017}.jsonl",
        min_length=1,
    )
    format: TextFormat | None = identity(
        None, "of the files; null: as their names end, .txt, .jsonl, .tar or .parquet"
    )
    columns: TextColumns = identity(
        TextColumns(),
        "JSON lines: keys, inner ones after a dot; WebDataset: member suffixes such as txt; "
        "Parquet: columns",
    )
    documents: Literal["line", "blank_line", "file"] = identity(
        "line",
        "where a document of plain text ends: with its line, at a blank line, or with the file",
    )

    @property
    def files_format(self) -> TextFormat:
        found = self.format or FORMATS.get(name_suffix(self.locations[0]))
        assert found is not None, "checked when the recipe was loaded"
        return found

    @model_validator(mode="after")
    def _names_tell_the_format(self) -> Self:
        formats = {name: FORMATS.get(name_suffix(name), "unknown") for name in self.locations}
        if self.format is None and (
            len(set(formats.values())) > 1 or "unknown" in formats.values()
        ):
            raise ValueError(
                f"the names of the files do not tell one format ({said(formats)}): set format to "
                f"{', '.join(FORMATS.values())}"
            )
        return self


class TextCleaningConfig(CleaningConfig):
    """Rules that drop documents; the first that applies to one is counted and reported."""

    min_characters: int | None = identity(None, "characters of a document, at least", gt=0)
    max_characters: int | None = identity(None, "characters of a document, at most", gt=0)


class TextDataConfig(DataConfig):
    """Documents and the shape of the prepared dataset."""

    language: str = identity("und", "code of the documents' language; und: not said")
    train: tuple[TextCorpusConfig, ...] = identity(
        REQUIRED, "training corpora; each is shuffled once, globally", min_length=1
    )
    cleaning: TextCleaningConfig = TextCleaningConfig()
    validation: TextCorpusConfig = Field(
        description="held-out documents that are scored while training"
    )
    tests: Mapping[HeldOutName, TextCorpusConfig] = identity(
        {}, "held-out sets for `transloom evaluate`, by name"
    )


class TextTokenizerConfig(TokenizerConfig):
    """A tokenizer of documents."""
