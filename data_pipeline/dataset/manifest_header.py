"""Manifest of a dataset without its shards: the part that ranks need.

    manifest.json ──Manifest.load, on the driver──▶ Manifest ──header()──▶ ManifestHeader
        ──RankJob──▶ every rank

Its size does not depend on the number of shards. A rank gets its micro-batches from data workers
and needs the dataset only for tokenizers and held-out sets, whose hashes are in the header.
"""

from typing import Any, Literal

from pydantic import PrivateAttr

from data_pipeline.config.data import DataSettings
from data_pipeline.dataset.manifest_records import (
    CorpusInfo,
    DocumentLengths,
    FieldInfo,
    FileInfo,
    HeldOutInfo,
    Many,
    SpecialIds,
    TokenizerInfo,
    Tombstone,
)
from data_pipeline.dataset.preparation_settings import differences, preparation_settings
from foundation.file_model import Count, FileModel
from foundation.tasks import DEFAULT_TASK

FORMAT_FAMILY = "transloom-dataset/"
FORMAT: Literal["transloom-dataset/2"] = "transloom-dataset/2"


class ManifestHeader(FileModel):
    """Contents and origin of a prepared dataset, without the list of its shards.

    `Manifest` is the file format and checks these fields. `Manifest.header` makes the headers that
    stand alone.
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
        """Sha256 of the manifest file that this object comes from."""
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
