"""What a manifest is made of: its records, each with the limits of its values.

`manifest.py` puts them together and compares them with each other.
"""

from typing import Annotated

from pydantic import Field

from data_pipeline.config.corpus import Sha256
from foundation.file_model import Count, FileModel

# File names relative to the dataset folder, which they cannot leave.
RelativeName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$", max_length=1000)
]


class FieldInfo(FileModel):
    """One sequence of every example, by the name it has in shards and batches."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    role: str  # what the task takes it for: source, target, document, label, tags
    language: str
    # Of a field that is no text but names some of these: its ids are their numbers from 1; 0: none.
    labels: Annotated[tuple[str, ...], Field(fail_fast=True)] = Field(
        default=(), exclude_if=lambda labels: not labels
    )

    @property
    def is_document(self) -> bool:
        """Whether its texts may hold line ends."""
        return self.role == "document"

    @property
    def label_ids(self) -> int:
        """How many ids a field of labels can have; 0 for a field of texts."""
        return len(self.labels) + 1 if self.labels else 0


class DocumentLengths(FileModel):
    """How many documents have about how many tokens."""

    counts: Annotated[
        tuple[Count, ...], Field(fail_fast=True)
    ]  # documents of 0, 1, 2–3, 4–7, … tokens: powers of two
    longest: Count  # tokens


class FileInfo(FileModel):
    file: RelativeName
    sha256: Sha256


class TokenizerInfo(FileInfo):
    vocabulary_size: Count
    # The tokenizer's name where an extension registers it; SentencePiece models have none.
    kind: str | None = Field(default=None, exclude_if=lambda kind: kind is None)


class HeldOutInfo(FileModel):
    """A held-out set: one file a field, with the same number of lines."""

    files: dict[str, FileInfo]
    pairs: Count
    tag: str | None  # put before every source sentence
    sha256s: Annotated[
        tuple[Sha256, ...], Field(fail_fast=True)
    ]  # of the corpus files as they were read


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
    tokens: dict[str, Count]  # by field, EOS included


class CorpusInfo(FileModel):
    """A training corpus as it was really read, whether or not the recipe pins it."""

    name: str
    tag: str | None  # put before every source sentence
    sha256s: Annotated[tuple[Sha256, ...], Field(fail_fast=True)]  # of its files, decompressed
    read: Count
    kept: Count
    dropped: dict[str, Count]  # pairs by the first reason that applied


class Tombstone(FileModel):
    """A shard that is left out; it keeps its place in the order, and its pairs their numbers."""

    shard: RelativeName
    reason: str
    parent: Sha256  # identity of the manifest without this tombstone
