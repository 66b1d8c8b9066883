"""Records of a manifest, each with the limits of its values.

`manifest.py` combines them and checks them against each other.
"""

from typing import Annotated, TypeVar

from pydantic import Field

from data_pipeline.config.corpus import Sha256
from foundation.file_model import Count, FileModel
from foundation.wording import counted

# Name of a file in the dataset folder. The pattern excludes names that lead out of the folder.
RELATIVE_NAME = r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$"
MAX_NAME_CHARACTERS = 1000
RelativeName = Annotated[str, Field(pattern=RELATIVE_NAME, max_length=MAX_NAME_CHARACTERS)]
FIELD_NAME = r"^[a-z][a-z0-9_]*$"
MAX_SHARDS = 250_000

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(fail_fast=True)]  # the first wrong item is reported alone


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
    # Numbers of examples that the training data contain, too: all, which may differ in case, white
    # space or forms of characters, and the equal ones. Without such examples, there is no entry.
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
    """File of the columns of all shards, whose layout shard_columns.py describes."""

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
