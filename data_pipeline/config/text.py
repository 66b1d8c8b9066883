"""What a recipe says about text that is no pairs: documents, how they are found and cleaned.

`foundation.section` explains what a change of a field means.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from data_pipeline.config.corpus import (
    LOCATION,
    CleaningConfig,
    Column,
    Columns,
    CorpusConfig,
    name_suffix,
)
from data_pipeline.config.data import DataConfig, HeldOutName, TokenizerConfig
from foundation.location import Location
from foundation.section import REQUIRED, identity
from foundation.wording import format_value, join_items

TEXT = "text"  # the field of a document, in shards and batches

FORMATS = {".txt": "text", ".jsonl": "jsonl", ".tar": "webdataset", ".parquet": "parquet"}


Share = Annotated[float, Field(ge=0, le=1)]


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
    has_documents: ClassVar[bool] = True
    own_formats: ClassVar[tuple[str, ...]] = ("text", "jsonl", "webdataset")
    formats_by_name: ClassVar[Mapping[str, str]] = FORMATS
    cut_formats: ClassVar[tuple[str, ...]] = ("text", "jsonl")  # those of which part takes a share

    files: tuple[Location, ...] = identity(
        REQUIRED,
        f"plain text, JSON lines, WebDataset tars or Parquet: {LOCATION}; braces stand for "
        "several: part-{000..017}.jsonl",
        min_length=1,
    )
    format: str | None = identity(
        None,
        "text, jsonl, webdataset, parquet or a registered one; null: as the files' names end: "
        ".txt, .jsonl, .tar or .parquet",
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
    part: tuple[Share, Share] = identity(
        (0.0, 1.0),
        "shares of each file's bytes, decompressed: the documents that begin between the two, or "
        "the lines if a file is a document. "
        "[0, 0.9] and [0.9, 1] have no document in common, and together all",
    )

    @property
    def share(self) -> tuple[float, float]:
        return self.part

    @property
    def files_are_documents(self) -> bool:
        return self.files_format == "text" and self.documents == "file"

    @property
    def files_format(self) -> str:
        found = self.format or self.formats_by_name.get(name_suffix(self.locations[0]))
        assert found is not None, "checked when the recipe was loaded"
        return found

    @model_validator(mode="after")
    def _scores_are_compared(self) -> Self:
        if (self.min_score is None) != (self.columns.score is None):
            raise ValueError(
                f"min_score is {format_value(self.min_score)} and columns.score is "
                f"{format_value(self.columns.score)}: set both to drop documents by their score, "
                "or neither"
            )
        return self

    @model_validator(mode="after")
    def _part_can_be_cut(self) -> Self:
        start, stop = self.part
        if start >= stop:
            raise ValueError(
                f"part is {join_items(self.part)}: the first share must be the smaller"
            )
        if self.part != (0.0, 1.0) and self.files_format not in self.cut_formats:
            raise ValueError(
                f"part is {join_items(self.part)} and the format {self.files_format}: only "
                f"{' and '.join(self.cut_formats)} are cut. Leave out part, or name other files "
                "for each use"
            )
        return self

    def _check_form(self) -> None:
        formats = {
            name: self.formats_by_name.get(name_suffix(name), "unknown") for name in self.locations
        }
        if self.format is None and (
            len(set(formats.values())) > 1 or "unknown" in formats.values()
        ):
            raise ValueError(
                f"the names of the files do not tell one format ({format_value(formats)}): set "
                f"format to {', '.join(dict.fromkeys(self.formats_by_name.values()))}"
            )


class TextCleaningConfig(CleaningConfig):
    """Rules that drop documents; the first that applies to one is counted and reported."""

    min_characters: int | None = identity(None, "characters of a document, at least", gt=0)
    max_characters: int | None = identity(None, "characters of a document, at most", gt=0)
    drop_heldout: bool = identity(
        True, "training documents that are equal to one of the validation or of a test"
    )

    @property
    def drops_heldout(self) -> bool:
        return self.drop_heldout


class TextTokenizerConfig(TokenizerConfig):
    """A tokenizer of documents, which gives back the text as it was."""

    verbatim: bool = identity(
        True,
        "text as it is: no normalisation, no space added or removed, line ends are characters; "
        "not read with an existing model",
    )
    training_pairs: int = identity(
        500_000,
        "most documents that a model is trained on, a random part of the corpora; not read with "
        "an existing model",
        gt=0,
    )
    training_megabytes: float = identity(
        100.0,
        "most text that a model is trained on, line by line; not read with an existing model",
        gt=0,
    )

    @property
    def training_bytes(self) -> int:
        return int(self.training_megabytes * 1e6)

    @model_validator(mode="after")
    def _segmentations_are_not_sampled(self) -> Self:
        if self.sampling.alpha:
            raise ValueError(
                f"sampling.alpha is {self.sampling.alpha}: the pieces of documents are not "
                "sampled. Leave it out"
            )
        return self

    @model_validator(mode="after")
    def _joint_is_not_set(self) -> Self:
        if not self.joint:
            raise ValueError("joint is false, and documents have one field: leave it out")
        return self


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
