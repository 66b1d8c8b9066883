"""Recipe settings of monolingual text: documents, their boundaries and their cleaning.

`foundation.section` explains `identity` and the other change classes of fields.
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
)
from data_pipeline.config.data import (
    TESTS,
    TRAIN,
    VERBATIM_HELP,
    DataConfig,
    HeldOutName,
    TokenizerConfig,
)
from foundation.location import Location
from foundation.section import REQUIRED, identity
from foundation.wording import join_items

TEXT = "text"  # the field of a document, in shards and batches

FORMATS = {".txt": "text", ".jsonl": "jsonl", ".tar": "webdataset", ".parquet": "parquet"}


Share = Annotated[float, Field(ge=0, le=1)]


class TextColumns(Columns):
    """Column of a line, sample or row that contains a document."""

    text: Column = identity("text", "the document")
    score: Column | None = identity(None, "a quality score of the document")

    @property
    def texts(self) -> tuple[Column, ...]:
        return (self.text,)

    @property
    def of_score(self) -> Column | None:
        return self.score


class TextCorpusConfig(CorpusConfig):
    """Corpus of documents."""

    noun: ClassVar[str] = "document"
    has_documents: ClassVar[bool] = True
    own_formats: ClassVar[tuple[str, ...]] = ("text", "jsonl", "webdataset")
    formats_by_name: ClassVar[Mapping[str, str]] = FORMATS
    cut_formats: ClassVar[tuple[str, ...]] = ("text", "jsonl")  # formats that `part` can cut

    files: tuple[Location, ...] = identity(
        REQUIRED,
        f"plain text, JSON lines, WebDataset tars or Parquet: {LOCATION}; braces expand to "
        "several files: part-{000..017}.jsonl",
        min_length=1,
    )
    format: str | None = identity(
        None,
        "text, jsonl, webdataset, parquet or a registered format; if null, the suffixes of the "
        "files' names determine it: .txt, .jsonl, .tar or .parquet",
    )
    columns: TextColumns = identity(
        TextColumns(),
        "column of the document. JSON lines: a key, with dots for nested objects; WebDataset: a "
        "member suffix such as txt; Parquet: a column name",
    )
    documents: Literal["line", "blank_line", "file"] = identity(
        "line",
        "boundaries of documents in plain text. line: each line is a document; blank_line: blank "
        "lines separate documents; file: each file is a document",
    )
    part: tuple[Share, Share] = identity(
        (0.0, 1.0),
        "start and stop, as shares of each file's decompressed bytes: the corpus has the documents "
        "that begin between them, or the lines that do if each file is a document. "
        "[0, 0.9] and [0.9, 1] have no document in common and together have all",
    )

    @property
    def share(self) -> tuple[float, float]:
        return self.part

    @property
    def files_are_documents(self) -> bool:
        return self.files_format == "text" and self.documents == "file"

    @model_validator(mode="after")
    def _scores_are_compared(self) -> Self:
        self._require_score_and_minimum()
        return self

    @model_validator(mode="after")
    def _part_can_be_cut(self) -> Self:
        start, stop = self.part
        if start >= stop:
            raise ValueError(
                f"part is {join_items(self.part)}: the first share must be smaller than the second"
            )
        if self.part != (0.0, 1.0) and self.files_format not in self.cut_formats:
            raise ValueError(
                f"part is {join_items(self.part)} and the format is {self.files_format}: only "
                f"{' and '.join(self.cut_formats)} can be cut. Remove part, or use separate files "
                "for training and for each held-out set"
            )
        return self

    def _check_form(self) -> None:
        self._require_one_format()


class TextCleaningConfig(CleaningConfig):
    """Rules that drop documents; a document is reported under the first rule that drops it."""

    min_characters: int | None = identity(None, "minimum characters of a document", gt=0)
    max_characters: int | None = identity(None, "maximum characters of a document", gt=0)
    drop_heldout: bool = identity(
        True, "drop training documents that equal a document of validation or tests"
    )

    @property
    def drops_heldout(self) -> bool:
        return self.drop_heldout


class TextTokenizerConfig(TokenizerConfig):
    """Tokenizer settings for documents; by default, decoding restores the original text exactly."""

    verbatim: bool = identity(True, VERBATIM_HELP)
    training_pairs: int = identity(
        500_000,
        "maximum number of documents, drawn at random from the corpora, to train a model on; "
        "ignored with an existing model",
        gt=0,
    )
    training_megabytes: float = identity(
        100.0,
        "maximum megabytes of text to train a model on, cut into lines; ignored with an existing "
        "model",
        gt=0,
    )

    @property
    def training_bytes(self) -> int:
        return int(self.training_megabytes * 1e6)

    @model_validator(mode="after")
    def _settings_of_pairs_are_not_set(self) -> Self:
        if self.sampling.alpha:
            raise ValueError(
                f"sampling.alpha is {self.sampling.alpha}, but documents do not support subword "
                "sampling: remove this setting"
            )
        if not self.joint:
            raise ValueError(
                "joint is false, but documents have only one tokenizer: remove this setting"
            )
        return self


class TextDataConfig(DataConfig):
    """Settings of a dataset of documents."""

    language: str = identity("und", "code of the documents' language; und: unspecified")
    train: tuple[TextCorpusConfig, ...] = TRAIN
    cleaning: TextCleaningConfig = TextCleaningConfig()
    validation: TextCorpusConfig = Field(
        description="held-out documents that are scored while training"
    )
    tests: Mapping[HeldOutName, TextCorpusConfig] = TESTS
