"""What a recipe says about one corpus, and about cleaning them all.

The class that a change of a field has is explained in `data_pipeline.config`.
"""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from braceexpand import braceexpand
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_pipeline.wording import listed, said

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
CorpusFormat = Literal["tsv", "jsonl", "webdataset"]
# A field of a line or sample: the number of a TSV column from 0, or a name.
Column = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]

# For fields that decide which pairs a run is fed, and when, but no byte of the prepared dataset.
PLAN_ONLY = "plan only"

LOCATION = (
    "a local path, a URL (http, https, s3, gs) or builtin:phrasebook/{train,validation,test}"
    ".{fr,en}; plain, gz, xz or zst, which the content tells"
)
FORMATS: dict[str, CorpusFormat] = {".tsv": "tsv", ".jsonl": "jsonl", ".tar": "webdataset"}
COMPRESSIONS = (".gz", ".xz", ".zst")


class ColumnsConfig(BaseModel):
    """Where a line or sample has its sentences."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source: Annotated[Column, Field(description="the source sentence"), "identity"] = 0
    target: Annotated[Column, Field(description="the target sentence"), "identity"] = 1
    score: Annotated[
        Column | None, Field(description="a number that says how good the pair is"), "identity"
    ] = None


class CorpusConfig(BaseModel):
    """Pairs of sentences: two files aligned line by line, or files that hold both sides."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source: Annotated[
        str | None, Field(description=f"source sentences, one a line: {LOCATION}"), "identity"
    ] = None
    target: Annotated[
        str | None,
        Field(description=f"target sentences, one a line: {LOCATION}"),
        "identity",
    ] = None
    source_sha256: Annotated[
        Sha256 | None, Field(description="sha256 of the decompressed source text"), "identity"
    ] = None
    target_sha256: Annotated[
        Sha256 | None, Field(description="sha256 of the decompressed target text"), "identity"
    ] = None
    files: Annotated[
        tuple[str, ...],
        Field(
            description="instead of source and target: files with both sides, TSV, JSON lines or "
            "WebDataset tars with one pair a sample; braces stand for several: part-{000..017}.tar"
        ),
        "identity",
    ] = ()
    files_sha256: Annotated[
        tuple[Sha256, ...],
        Field(description="sha256 of each file's decompressed content, in the order of the files"),
        "identity",
    ] = ()
    format: Annotated[
        CorpusFormat | None,
        Field(description="of the files; null: as their names end, .tsv, .jsonl or .tar"),
        "identity",
    ] = None
    columns: Annotated[
        ColumnsConfig,
        Field(
            description="TSV: numbers from 0, or names if the first line has them; JSON lines: "
            "keys, inner ones after a dot; WebDataset: member suffixes such as en.txt"
        ),
        "identity",
    ] = ColumnsConfig()
    min_score: Annotated[
        float | None, Field(description="pairs with a lower score are dropped"), "identity"
    ] = None
    name: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z0-9][a-z0-9-]*$",
            description="names the corpus in shards and reports; null: train, or train-0, train-1 "
            "and so on",
        ),
        "identity",
    ] = None
    tag: Annotated[
        str | None,
        Field(
            pattern=r"^<\S+>$",
            description="a piece such as <2de> or <bt> put before every source sentence, as in "
            "Johnson et al. 2017 and Caswell et al. 2019",
        ),
        "identity",
    ] = None
    weight: Annotated[
        float | None,
        Field(
            gt=0,
            description="share of this corpus in what is trained on, relative to the other "
            "corpora's; null for all: by their sizes and data.temperature",
        ),
        "identity",
        PLAN_ONLY,
    ] = None

    @property
    def locations(self) -> tuple[str, ...]:
        """Every file by itself: source and target, or `files` with their braces expanded."""
        if self.source is not None and self.target is not None:
            return (self.source, self.target)
        return tuple(name for pattern in self.files for name in braceexpand(pattern))

    @property
    def sha256s(self) -> tuple[str | None, ...]:
        """The recipe's hash of each location, None where it has none."""
        if self.source is not None:
            return (self.source_sha256, self.target_sha256)
        return self.files_sha256 or (None,) * len(self.locations)

    @property
    def files_format(self) -> CorpusFormat | None:
        """The format of `files`; None for two aligned files."""
        if not self.files:
            return None
        return self.format or _format_of(self.locations[0])

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.source is None) != (self.target is None) or bool(self.files) == bool(self.source):
            raise ValueError(
                f"source is {said(self.source)}, target is {said(self.target)} and files is "
                f"{listed(self.files)}: give either source and target, or files"
            )
        if self.files and (self.source_sha256 or self.target_sha256):
            raise ValueError("files are pinned by files_sha256, not by source_sha256")
        of_files = {"files_sha256", "format", "columns", "min_score"}
        given = self.model_dump(include=of_files, exclude_defaults=True)
        if given and not self.files:
            raise ValueError(f"{', '.join(given)} belong to files, which is empty")
        if self.files_sha256 and len(self.files_sha256) != len(self.locations):
            raise ValueError(
                f"files are {len(self.locations)} and files_sha256 has {len(self.files_sha256)} "
                "hashes: give one for each file, in their order"
            )
        return self

    @model_validator(mode="after")
    def _files_can_be_read(self) -> Self:
        if not self.files:
            return self
        if self.format is None:
            formats = {name: _format_of(name) or "unknown" for name in self.locations}
            if len(set(formats.values())) > 1 or "unknown" in formats.values():
                raise ValueError(
                    f"the names of the files do not tell one format ({said(formats)}): set "
                    "format to tsv, jsonl or webdataset"
                )
        columns = self.columns.model_dump()
        if self.files_format != "tsv" and any(isinstance(c, int) for c in columns.values()):
            raise ValueError(
                f"columns are {said(columns)}, and {self.files_format} has names, not numbers: set "
                "columns.source and columns.target, such as en and de"
            )
        if (self.min_score is None) != (self.columns.score is None):
            raise ValueError(
                f"min_score is {said(self.min_score)} and columns.score is "
                f"{said(self.columns.score)}: set both to drop pairs by their score, or neither"
            )
        return self

    @model_validator(mode="after")
    def _remote_files_are_pinned(self) -> Self:
        for location, sha256 in zip(self.locations, self.sha256s, strict=True):
            if is_remote(location) and sha256 is None:
                raise ValueError(
                    f"{location} is remote and its sha256 is not set: what a URL gives can change, "
                    "so set source_sha256 and target_sha256, or files_sha256, to the sha256 of the "
                    "decompressed content"
                )
        return self


class CleaningConfig(BaseModel):
    """Rules that drop pairs; the first that applies to a pair is counted and reported.

    Pairs with an empty side are always dropped, and those of more pieces than
    `data.max_source_length` and `data.max_target_length`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    normalise: Annotated[
        Literal["NFC", "NFKC"] | None,
        Field(description="Unicode normalisation of every training sentence (UAX #15)"),
        "identity",
    ] = None
    max_source_characters: Annotated[
        int | None, Field(gt=0, description="characters of a source sentence"), "identity"
    ] = None
    max_target_characters: Annotated[
        int | None, Field(gt=0, description="characters of a target sentence"), "identity"
    ] = None
    max_length_ratio: Annotated[
        float | None,
        Field(ge=1, description="characters of the longer side over those of the shorter"),
        "identity",
    ] = None
    drop_identical: Annotated[
        bool, Field(description="pairs whose sides are the same sentence"), "identity"
    ] = False
    drop_duplicates: Annotated[
        bool,
        Field(description="all but the first of equal pairs of a corpus"),
        "identity",
    ] = False


def is_remote(location: str) -> bool:
    """Whether a location is a URL that fsspec opens, rather than a path or a built-in corpus."""
    return "://" in location and not location.startswith("file://")


def _format_of(location: str) -> CorpusFormat | None:
    name = PurePosixPath(urlsplit(location).path)
    if name.suffix in COMPRESSIONS:
        name = name.with_suffix("")
    return FORMATS.get(name.suffix)
