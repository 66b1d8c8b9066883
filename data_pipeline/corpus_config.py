"""What a recipe says about one corpus, and about cleaning them all.

`data_pipeline.section` explains what a change of a field means.
"""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from braceexpand import braceexpand
from pydantic import Field, model_validator

from data_pipeline.section import Section, identity
from data_pipeline.wording import listed, said

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
CorpusFormat = Literal["tsv", "jsonl", "webdataset"]
# A field of a line or sample: the number of a TSV column from 0, or a name.
Column = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]

LOCATION = (
    "a local path, a URL (http, https, s3, gs) or builtin:phrasebook/{train,validation,test}"
    ".{fr,en}; plain, gz, xz or zst, which the content tells"
)
FORMATS: dict[str, CorpusFormat] = {".tsv": "tsv", ".jsonl": "jsonl", ".tar": "webdataset"}
COMPRESSIONS = (".gz", ".xz", ".zst")


class ColumnsConfig(Section):
    """Where a line or sample has its sentences."""

    source: Column = identity(0, "the source sentence")
    target: Column = identity(1, "the target sentence")
    score: Column | None = identity(None, "a number that says how good the pair is")


class CorpusConfig(Section):
    """Pairs of sentences: two files aligned line by line, or files that hold both sides."""

    source: str | None = identity(None, f"source sentences, one a line: {LOCATION}")
    target: str | None = identity(None, f"target sentences, one a line: {LOCATION}")
    source_sha256: Sha256 | None = identity(None, "sha256 of the decompressed source text")
    target_sha256: Sha256 | None = identity(None, "sha256 of the decompressed target text")
    files: tuple[str, ...] = identity(
        (),
        "instead of source and target: files with both sides, TSV, JSON lines or "
        "WebDataset tars with one pair a sample; braces stand for several: part-{000..017}.tar",
    )
    files_sha256: tuple[Sha256, ...] = identity(
        (), "sha256 of each file's decompressed content, in the order of the files"
    )
    format: CorpusFormat | None = identity(
        None, "of the files; null: as their names end, .tsv, .jsonl or .tar"
    )
    columns: ColumnsConfig = identity(
        ColumnsConfig(),
        "TSV: numbers from 0, or names if the first line has them; JSON lines: "
        "keys, inner ones after a dot; WebDataset: member suffixes such as en.txt",
    )
    min_score: float | None = identity(None, "pairs with a lower score are dropped")
    name: str | None = identity(
        None,
        "names the corpus in shards and reports; null: train, or train-0, train-1 and so on",
        pattern=r"^[a-z0-9][a-z0-9-]*$",
    )
    tag: str | None = identity(
        None,
        "a piece such as <2de> or <bt> put before every source sentence, as in "
        "Johnson et al. 2017 and Caswell et al. 2019",
        pattern=r"^<\S+>$",
    )
    weight: float | None = identity(
        None,
        "share of this corpus in what is trained on, relative to the other "
        "corpora's; null for all: by their sizes and data.temperature",
        gt=0,
        plan_only=True,
    )

    @property
    def locations(self) -> tuple[str, ...]:
        """The location of every file: source and target, or `files` with their braces expanded."""
        if self.source is not None and self.target is not None:
            return (self.source, self.target)
        return tuple(name for pattern in self.files for name in braceexpand(pattern))

    @property
    def sha256s(self) -> tuple[str | None, ...]:
        """The recipe's hash for each location; None where it has none."""
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


class CleaningConfig(Section):
    """Rules that drop pairs; the first that applies to a pair is counted and reported.

    Pairs with an empty side, or with more tokens than `data.max_source_length` or
    `data.max_target_length`, are always dropped.
    """

    normalise: Literal["NFC", "NFKC"] | None = identity(
        None, "Unicode normalisation of every training sentence (UAX #15)"
    )
    max_source_characters: int | None = identity(None, "characters of a source sentence", gt=0)
    max_target_characters: int | None = identity(None, "characters of a target sentence", gt=0)
    max_length_ratio: float | None = identity(
        None, "characters of the longer side over those of the shorter", ge=1
    )
    drop_identical: bool = identity(False, "pairs whose sides are the same sentence")
    drop_duplicates: bool = identity(False, "all but the first of equal pairs of a corpus")


def is_remote(location: str) -> bool:
    """Whether a location is a URL that fsspec opens, rather than a path or a built-in corpus."""
    return "://" in location and not location.startswith("file://")


def _format_of(location: str) -> CorpusFormat | None:
    name = PurePosixPath(urlsplit(location).path)
    if name.suffix in COMPRESSIONS:
        name = name.with_suffix("")
    return FORMATS.get(name.suffix)
