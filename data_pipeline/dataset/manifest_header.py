"""Manifest of a dataset without its shards: the part that ranks need, and its records.

    manifest.json ──Manifest.load, on the driver──▶ Manifest ──header()──▶ ManifestHeader
        ──RankJob──▶ every rank

Its size does not depend on the number of shards. A rank gets its micro-batches from data workers
and needs the dataset only for tokenizers and held-out sets, whose hashes are in the header.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, PrivateAttr

from data_pipeline.config.corpus import Sha256
from data_pipeline.config.data import DataSettings
from data_pipeline.dataset.preparation_settings import differences, preparation_settings
from foundation.file_model import Count, FileModel
from foundation.tasks import DEFAULT_TASK
from foundation.wording import counted

FORMAT_FAMILY = "transloom-dataset/"
FORMAT: Literal["transloom-dataset/2"] = "transloom-dataset/2"
# Name of a file in the dataset folder. The pattern excludes names that lead out of the folder.
RELATIVE_NAME = r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$"
MAX_NAME_CHARACTERS = 1000
RelativeName = Annotated[str, Field(pattern=RELATIVE_NAME, max_length=MAX_NAME_CHARACTERS)]
FIELD_NAME = r"^[a-z][a-z0-9_]*$"
MAX_SHARDS = 250_000

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(fail_fast=True)]  # only the first wrong item is reported


class FieldInfo(FileModel):
    """Field of a dataset: a kind of sequence that every example has, such as a source sentence."""

    name: Annotated[str, Field(pattern=FIELD_NAME)]
    role: str  # role in the task: source, target, document, label, tags
    language: str
    # Labels, for a field that is not text. The field's ids are the numbers of its labels, from 1; 0
    # means no label.
    labels: Many[str] = Field(default=(), exclude_if=lambda labels: not labels)

    @property
    def is_document(self) -> bool:
        """True if the field's texts may contain line ends."""
        return self.role == "document"

    @property
    def label_ids(self) -> int:
        """Number of ids that a field of labels can have; 0 for a field of texts."""
        return len(self.labels) + 1 if self.labels else 0


class DocumentLengths(FileModel):
    """Histogram of documents by tokens, with bins of powers of two."""

    counts: Many[Count]  # numbers of documents with 0, 1, 2–3, 4–7, … tokens
    longest: Count  # in tokens


class FileInfo(FileModel):
    file: RelativeName
    sha256: Sha256


class TokenizerInfo(FileInfo):
    vocabulary_size: Count
    # Name of a tokenizer that an extension registers, or None for SentencePiece models.
    kind: str | None = Field(default=None, exclude_if=lambda kind: kind is None)


class HeldOutInfo(FileModel):
    """Held-out set: one file per field, all with the same number of lines."""

    files: dict[str, FileInfo]
    pairs: Count
    tag: str | None  # tag before every source sentence, or None
    sha256s: Many[Sha256]  # of the decompressed corpus files
    # Numbers of this set's examples that are also in the training data. The first number includes
    # examples that differ only in case, white space or forms of characters. 0 is not written.
    in_training: Count = Field(default=0, exclude_if=lambda count: not count)
    in_training_exactly: Count = Field(default=0, exclude_if=lambda count: not count)

    def leak(self, name: str, noun: str) -> str | None:
        """Return a warning if examples of this set are in the training data, or None.

        Args:
            name: the name of the set.
            noun: the word for an example, such as "pair".
        """
        if not self.in_training:
            return None
        return (
            f"{self.in_training:,} of {counted(self.pairs, noun)} of the held-out set {name} are "
            f"in the training data, too ({self.in_training_exactly:,} exactly, the others with "
            "another case, white space or form of characters), so scores of this set measure "
            "memory. Drop the exact ones from training with data.cleaning.drop_heldout=true, or "
            "hold out others"
        )


class SpecialIds(FileModel):
    pad: Count
    unk: Count
    bos: Count
    eos: Count


class ShardInfo(FileModel):
    name: RelativeName
    bytes: Count
    sha256: Sha256
    corpus: Count  # position in `corpora`
    pairs: Annotated[Count, Field(ge=1)]
    first_pair: Count  # number of its first pair in the manifest's order
    tokens: dict[str, Count]  # numbers of tokens by field, EOS included


class ShardTable(FileInfo):
    """File with the columns of all shards; shard_columns.py describes its layout."""

    shards: Annotated[Count, Field(ge=1, le=MAX_SHARDS)]
    name_bytes: Annotated[Count, Field(le=MAX_SHARDS * MAX_NAME_CHARACTERS)]  # of all names
    fields: Annotated[Many[Annotated[str, Field(pattern=FIELD_NAME)]], Field(max_length=64)]

    @property
    def bytes(self) -> int:
        """Size of the file in bytes, which follows from the numbers of shards and fields."""
        return self.shards * (8 * (4 + len(self.fields)) + 32) + self.name_bytes


class CorpusInfo(FileModel):
    """Training corpus, with the hashes of all its files, even if the recipe does not pin them."""

    name: str
    tag: str | None  # tag before every source sentence, or None
    sha256s: Many[Sha256]  # of its decompressed files
    read: Count
    kept: Count
    dropped: dict[str, Count]  # numbers of pairs, by the first reason that applied


class Tombstone(FileModel):
    """Shard that is excluded from training; the numbers of all shards and pairs stay unchanged."""

    shard: RelativeName
    reason: str
    parent: Sha256  # identity of the manifest without this tombstone


class ManifestHeader(FileModel):
    """Contents and origin of a prepared dataset, without the list of its shards.

    The subclass `Manifest` is the file format and checks these fields. `Manifest.header` returns a
    header without shards.
    """

    format: Literal["transloom-dataset/2"] = FORMAT
    fields: Many[FieldInfo]
    tokenizers: dict[str, TokenizerInfo]  # by field; a joint tokenizer is listed under each
    special_ids: SpecialIds
    corpora: Many[CorpusInfo]
    # By field: the number of pairs of length 0, 1, 2, ...; for documents, bins of powers of two.
    lengths: dict[str, Many[Count] | DocumentLengths]
    cleaning: FileInfo
    heldout: dict[str, HeldOutInfo]
    preparation: dict[str, Any]  # the settings of the recipe that differ from their defaults
    tombstones: Many[Tombstone] = ()

    _identity: str = PrivateAttr(default="")
    _shard_count: int = PrivateAttr(default=0)

    @property
    def identity(self) -> str:
        """Sha256 of the manifest's JSON text with all shards, see manifest.py."""
        assert self._identity, "only a loaded manifest has an identity"
        return self._identity

    @property
    def origin(self) -> str:
        """Identity of the dataset's first manifest, which has no tombstones."""
        return self.tombstones[0].parent if self.tombstones else self.identity

    @property
    def pairs(self) -> int:
        """Number of pairs of all corpora, including the pairs of excluded shards."""
        return sum(corpus.kept for corpus in self.corpora)

    @property
    def shard_count(self) -> int:
        """Number of shards, those left out included."""
        return self._shard_count

    @property
    def task(self) -> str:
        """Name of the task that the dataset was prepared for."""
        return str(self.preparation.get("task", DEFAULT_TASK))

    @property
    def noun(self) -> str:
        """Word for an example in messages."""
        return "document" if any(field.is_document for field in self.fields) else "pair"

    @property
    def leaks(self) -> list[str]:
        """Warnings about held-out examples that the training data contain, too."""
        warnings = (info.leak(name, self.noun) for name, info in self.heldout.items())
        return [warning for warning in warnings if warning]

    @property
    def left_out(self) -> frozenset[str]:
        """Names of the shards with a tombstone."""
        return frozenset(tombstone.shard for tombstone in self.tombstones)

    def left_out_since(self, identity: str) -> frozenset[str]:
        """Return the names of the shards excluded since the parent manifest with this identity.

        The set is empty if no parent has this identity.
        """
        since = [tombstone.parent for tombstone in self.tombstones]
        start = since.index(identity) if identity in since else len(since)
        return frozenset(tombstone.shard for tombstone in self.tombstones[start:])

    def longest(self) -> dict[str, int]:
        """Return the length of the longest sequence of each field, EOS included."""
        return {
            field: lengths.longest if isinstance(lengths, DocumentLengths) else len(lengths) - 1
            for field, lengths in self.lengths.items()
        }

    def differences(self, settings: DataSettings) -> list[str]:
        """Return descriptions of the settings that differ between this dataset and a recipe."""
        return differences(self.preparation, preparation_settings(settings))
