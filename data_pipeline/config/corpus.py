"""What a recipe says about any corpus, whatever its task, and about cleaning them all.

`data_pipeline.config.pair` and `data_pipeline.config.text` have the kinds of corpora.
`foundation.section` explains what a change of a field means.
"""

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from braceexpand import braceexpand
from pydantic import Field, model_validator

from foundation.location import Location
from foundation.registry import Registry
from foundation.section import Section, identity
from foundation.wording import join_items

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A field of a line or sample: the number of a TSV column from 0, or a name.
Column = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]

LOCATION = (
    "a local path, a URL (http, https, s3, gs) or builtin:phrasebook/{train,validation,test}"
    ".{fr,en}; plain, gz, xz or zst, which the content tells"
)
COMPRESSIONS = (".gz", ".xz", ".zst")

READERS = Registry[Callable[..., Iterable[Any]]]("format", "format")
"""Formats that are read without being cut first: see `data_pipeline.corpora.readers`."""
READERS.register("parquet", "data_pipeline.corpora.parquet:read_parquet")


class Columns(Section):
    """Where a line or sample has the texts of an example."""

    @property
    def texts(self) -> tuple[Column, ...]:
        """The column of each field's text, in the order of the task's fields."""
        raise NotImplementedError

    @property
    def labels(self) -> tuple[str, ...]:
        """What the texts are called in reports, in the same order: by the names of their keys."""
        return tuple(name for name in type(self).model_fields if name != "score")

    @property
    def of_score(self) -> Column | None:
        """The column of a number that says how good the example is."""
        return None

    @property
    def of_numbers(self) -> frozenset[Column]:
        """The columns of texts that may be whole numbers, which then stand for their digits."""
        return frozenset()


# The order of fields is a format: manifests and the names of run folders have it. Fields of pairs
# stand between those that all corpora share, so both are inherited, the last base's first.


class FilesConfig(Section):
    """The files of a corpus, and its name."""

    files: tuple[Location, ...] = identity((), "files with text; braces stand for several")
    files_sha256: tuple[Sha256, ...] = identity(
        (), "sha256 of each file's decompressed content, in the order of the files"
    )
    format: str | None = identity(None, "of the files; null: as their names end")
    columns: Columns = identity(Columns(), "where a line or sample of the files has its text")
    min_score: float | None = identity(None, "examples with a lower score are dropped")
    name: str | None = identity(
        None,
        "names the corpus in shards and reports; null: train, or train-0, train-1 and so on",
        pattern=r"^[a-z0-9][a-z0-9-]*$",
    )


class _Weight(Section):
    weight: float | None = identity(
        None,
        "share of this corpus in what is trained on, relative to the other "
        "corpora's; null for all: by their sizes and data.temperature",
        gt=0,
        plan_only=True,
    )


class CorpusConfig(_Weight, FilesConfig):
    """Text to train on or to score: what all kinds of corpora have."""

    noun: ClassVar[str] = "example"  # what reports call an example
    has_documents: ClassVar[bool] = False  # whether a text may be long and have line ends
    own_formats: ClassVar[tuple[str, ...]] = ()  # besides those of READERS
    _hash_keys: ClassVar[str] = "files_sha256"

    @property
    def locations(self) -> tuple[Location, ...]:
        """The location of every file, with the braces of `files` expanded."""
        return tuple(Location(name) for pattern in self.files for name in braceexpand(pattern))

    @property
    def sha256s(self) -> tuple[str | None, ...]:
        """The recipe's hash for each location; None where it has none."""
        return self.files_sha256 or (None,) * len(self.locations)

    @property
    def files_format(self) -> str | None:
        """The format of `files`; None for files that are aligned with each other."""
        return self.format

    @property
    def share(self) -> tuple[float, float]:
        """The part of each file's bytes in which the corpus's examples begin."""
        return (0.0, 1.0)

    @property
    def texts_of_files(self) -> tuple[tuple[str, ...], ...]:
        """For each location the texts that all of its examples have, after those that are read.

        Empty if there are none.
        """
        return ()

    @property
    def tags(self) -> dict[str, str]:
        """The piece that stands before every text of a field, by field."""
        return {}

    def _check_form(self) -> None:
        """Checks first of all that it is clear which files are meant."""

    @model_validator(mode="after")
    def _form_is_clear(self) -> Self:
        self._check_form()
        return self

    @model_validator(mode="after")
    def _format_is_known(self) -> Self:
        if self.format not in (None, *self.own_formats) and self.format not in READERS:
            raise ValueError(
                f"format is {self.format!r}, and there is no such format: there are "
                f"{join_items((*self.own_formats, *READERS))}. Name one of them, or list the "
                "module that registers it under extensions"
            )
        return self

    @model_validator(mode="after")
    def _every_file_has_its_hash(self) -> Self:
        if self.files_sha256 and len(self.files_sha256) != len(self.locations):
            raise ValueError(
                f"files are {len(self.locations)} and files_sha256 has {len(self.files_sha256)} "
                "hashes: give one for each file, in their order"
            )
        return self

    @model_validator(mode="after")
    def _remote_files_are_pinned(self) -> Self:
        for location, sha256 in zip(self.locations, self.sha256s, strict=True):
            if is_remote(location) and sha256 is None:
                raise ValueError(
                    f"{location} is remote and its sha256 is not set: what a URL gives can change, "
                    f"so set {self._hash_keys} to the sha256 of the decompressed content"
                )
        return self


class NormaliseConfig(Section):
    """The form in which characters are written."""

    normalise: Literal["NFC", "NFKC"] | None = identity(
        None, "Unicode normalisation of every training text (UAX #15)"
    )


class _Duplicates(Section):
    drop_duplicates: bool = identity(False, "all but the first of equal examples of a corpus")


class CleaningConfig(_Duplicates, NormaliseConfig):
    """Rules that drop examples; the first that applies to one is counted and reported."""

    @property
    def drops_heldout(self) -> bool:
        """Whether a training example that equals a held-out one is dropped."""
        return False


def is_remote(location: str) -> bool:
    """Whether a location is a URL that fsspec opens, rather than a path or a built-in corpus."""
    return "://" in location and not location.startswith("file://")


def name_suffix(location: str) -> str:
    """The end of a file's name that tells its format, such as .tsv, without that of compression."""
    name = PurePosixPath(urlsplit(location).path)
    return (name.with_suffix("") if name.suffix in COMPRESSIONS else name).suffix
