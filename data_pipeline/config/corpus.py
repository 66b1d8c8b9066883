"""Recipe settings that the corpora of all tasks share, and settings of cleaning.

`data_pipeline.config.pair` and `data_pipeline.config.text` define the kinds of corpora.
`foundation.section` explains `identity` and the other change classes of fields.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from braceexpand import braceexpand
from pydantic import Field, model_validator

from foundation.location import Location
from foundation.registry import Registry
from foundation.section import Section, identity
from foundation.wording import counted, format_value

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Location of a text in a line or sample: the number of a TSV column, from 0, or a name.
# YAML reads `no` as false, which must not become the number 0.
Column = Annotated[int, Field(ge=0, strict=True)] | Annotated[str, Field(min_length=1)]

LOCATION = (
    "a local path, a URL (http, https, s3, gs, az) or builtin:phrasebook/{train,validation,test}"
    ".{fr,en}; the content may be plain or compressed with gz, bz2, xz or zst"
)
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
# Suffixes of compressed archives, each with the suffix of the same archive without compression.
_ARCHIVES = {".tgz": ".tar", ".tbz2": ".tar", ".txz": ".tar", ".tzst": ".tar"}

READERS = Registry[Callable[..., Iterable[Any]]]("format", "format")
"""Readers of formats whose files are not cut into chunks; see `data_pipeline.corpora.readers`."""
READERS.register("parquet", "data_pipeline.corpora.parquet:read_parquet")


class Columns(Section):
    """Columns of a line or sample that hold the texts of an example."""

    @property
    def texts(self) -> tuple[Column, ...]:
        """Column of each field's text, in the order of the task's fields."""
        raise NotImplementedError

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the texts in reports, in the order of `texts`: this section's field names."""
        return tuple(name for name in type(self).model_fields if name != "score")

    @property
    def of_score(self) -> Column | None:
        """Column with a score of the example's quality, or None if there is none."""
        return None

    @property
    def of_numbers(self) -> frozenset[Column]:
        """Columns whose values may be integers, which are then read as their decimal digits."""
        return frozenset()


# Manifests and the names of run folders depend on the order of the fields, so it must not change.
# In a pair corpus, the fields of pairs come between two groups of fields that all corpora share.
# Each group is therefore a separate base class. pydantic puts the fields of the last base class
# first.


class FilesConfig(Section):
    """Files of a corpus, and its name."""

    files: tuple[Location, ...] = identity(
        (), "files with text; braces in a name expand to several files"
    )
    files_sha256: tuple[Sha256, ...] = identity(
        (), "sha256 of each file's decompressed content, in the order of the files"
    )
    format: str | None = identity(
        None, "format of the files; if null, the suffixes of the files' names determine it"
    )
    columns: Columns = identity(Columns(), "columns of a line or sample that hold its text")
    min_score: float | None = identity(None, "drop examples with a lower score")
    name: str | None = identity(
        None,
        "name of the corpus in shards and reports; if null, the name is train, or train-0, train-1 "
        "and so on for several corpora",
        pattern=r"^[a-z0-9][a-z0-9-]*$",
    )


class _Weight(Section):
    weight: float | None = identity(
        None,
        "share of this corpus in the training examples, relative to the weights of the other "
        "corpora; if all weights are null, sizes and data.temperature determine the shares",
        gt=0,
        plan_only=True,
    )


class CorpusConfig(_Weight, FilesConfig):
    """Settings that all kinds of corpora share, whether for training or for scoring."""

    noun: ClassVar[str] = "example"  # the word for an example in reports
    has_documents: ClassVar[bool] = False  # whether a text may be long and contain line ends
    own_formats: ClassVar[tuple[str, ...]] = ()  # formats in addition to those in READERS
    formats_by_name: ClassVar[Mapping[str, str]] = {}  # format for each suffix of file names
    _hash_keys: ClassVar[str] = "files_sha256"

    @property
    def locations(self) -> tuple[Location, ...]:
        """Location of every file, with the braces of `files` expanded."""
        return tuple(Location(name) for pattern in self.files for name in braceexpand(pattern))

    @property
    def sha256s(self) -> tuple[str | None, ...]:
        """Sha256 that the recipe gives for each location, or None for a location without one."""
        return self.files_sha256 or (None,) * len(self.locations)

    @property
    def files_format(self) -> str | None:
        """Format of `files`, or None for files that are aligned with each other."""
        if self.format or not self.files:
            return self.format
        return self.formats_by_name.get(name_suffix(self.locations[0]))

    @property
    def share(self) -> tuple[float, float]:
        """Part of each file that is used: start and stop, as shares of the file's bytes.

        The corpus has the examples that begin in this part.
        """
        return (0.0, 1.0)

    @property
    def texts_of_files(self) -> tuple[tuple[str, ...], ...]:
        """Texts to append to the texts of every example of a file, for each location.

        The tuple is empty if there are no such texts.
        """
        return ()

    @property
    def tags(self) -> dict[str, str]:
        """Tag to put before every text of each field, by name of the field."""
        return {}

    def _check_form(self) -> None:
        """Check, before all other rules, that the settings name the files unambiguously."""

    def _require_one_format(self) -> None:
        """Check that the names of the files indicate one format if `format` is not set."""
        known = self.formats_by_name
        formats = {name: known.get(name_suffix(name), "unknown") for name in self.locations}
        found = set(formats.values())
        if self.format is None and (len(found) > 1 or "unknown" in found):
            raise ValueError(
                f"the names of the files indicate no single format ({format_value(formats)}): set "
                f"format to {', '.join(dict.fromkeys(known.values()))}"
            )

    def _require_score_and_minimum(self) -> None:
        """Check that either both the column of the score and the minimum are set, or neither."""
        score = self.columns.of_score
        if (self.min_score is None) != (score is None):
            raise ValueError(
                f"min_score is {format_value(self.min_score)} and columns.score is "
                f"{format_value(score)}: set both to drop {self.noun}s by their score, or remove "
                "both"
            )

    @model_validator(mode="after")
    def _files_are_unambiguous(self) -> Self:
        self._check_form()
        return self

    @model_validator(mode="after")
    def _format_is_known(self) -> Self:
        if self.format is not None:
            READERS.known(self.format, self.own_formats)
        return self

    @model_validator(mode="after")
    def _files_have_their_hashes(self) -> Self:
        if self.files_sha256 and len(self.files_sha256) != len(self.locations):
            raise ValueError(
                f"files_sha256 has {len(self.files_sha256)} values for "
                f"{counted(len(self.locations), 'file')}: give one for each file, in their order"
            )
        for location, sha256 in zip(self.locations, self.sha256s, strict=True):
            if is_remote(location) and sha256 is None:
                raise ValueError(
                    f"{location} is remote and its sha256 is not set: the content of a URL can "
                    f"change, so set {self._hash_keys} to the sha256 of the decompressed content"
                )
        return self


class NormaliseConfig(Section):
    """Normalisation of characters."""

    normalise: Literal["NFC", "NFKC"] | None = identity(
        None, "Unicode normalisation of every training text (UAX #15)"
    )


class _Duplicates(Section):
    drop_duplicates: bool = identity(False, "drop all but the first of equal examples of a corpus")


class CleaningConfig(_Duplicates, NormaliseConfig):
    """Rules that drop examples; an example is reported under the first rule that drops it."""

    @property
    def drops_heldout(self) -> bool:
        """True if a training example that equals a held-out one is dropped."""
        return False


def is_remote(location: str) -> bool:
    """Return whether the location is a URL, not a path or a built-in corpus."""
    return "://" in location and not location.startswith("file://")


def name_suffix(location: str) -> str:
    """Return the suffix of a name that indicates the file's format, such as .tsv for A.TSV.GZ."""
    path = urlsplit(location).path if "://" in location else location
    suffix = plain_name(PurePosixPath(path.lower())).suffix
    return _ARCHIVES.get(suffix, suffix)


def plain_name(name: PurePosixPath) -> PurePosixPath:
    """Return the name without its compression suffix, whose case is ignored."""
    return name.with_suffix("") if name.suffix.lower() in COMPRESSIONS else name
