"""The dataset folder and its table of contents, `manifest.json`.

    DATASET/
      manifest.json                  this file; its sha256 is the dataset's identity
      tokenizer.model                or tokenizer.src.model and tokenizer.tgt.model
      shards/train-00000.tar ...     see shards.py; each holds pairs of one corpus
      heldout/validation.src.txt ... the held-out text, so that training needs only this folder
      cleaning.json                  what was dropped, with examples

The manifest names every other file with its sha256, so whoever trusts the manifest's hash can
trust them all.

A shard that is lost for good is left out by a tombstone in a child manifest. Nothing else changes
there. So the order and numbers of all other pairs stay, and removing the tombstone gives the parent
back, byte for byte.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr, ValidationError, model_validator

from data_pipeline.arrays import Int64Array
from data_pipeline.config import DataConfig, DataSettings
from data_pipeline.corpus_config import Sha256
from data_pipeline.dataset.preparation_settings import differences, preparation_settings
from data_pipeline.errors import DatasetError
from data_pipeline.storage.locations import cache_folder
from data_pipeline.storage.store import MANIFEST_NAME, DatasetStore, open_store
from data_pipeline.wording import counted
from data_pipeline.written import Written

FORMAT_FAMILY = "transloom-dataset/"
FORMAT: Literal["transloom-dataset/2"] = "transloom-dataset/2"

# File names relative to the dataset folder, which they cannot leave.
RelativeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$")]
Count = Annotated[int, Field(ge=0)]


class FieldInfo(Written):
    """One sequence of every example, by the name it has in shards and batches."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    role: str  # what the task takes it for: source, target, document
    language: str

    @property
    def is_document(self) -> bool:
        """Whether its texts may hold line ends."""
        return self.role == "document"


class DocumentLengths(Written):
    """How many documents have about how many tokens."""

    counts: tuple[Count, ...]  # documents of 0, 1, 2–3, 4–7, … tokens: powers of two
    longest: Count  # tokens


class FileInfo(Written):
    file: RelativeName
    sha256: Sha256


class TokenizerInfo(FileInfo):
    vocabulary_size: Count
    # The tokenizer's name where an extension registers it; SentencePiece models have none.
    kind: str | None = Field(default=None, exclude_if=lambda kind: kind is None)


class HeldOutInfo(Written):
    """A held-out set: one file a field, with the same number of lines."""

    files: dict[str, FileInfo]
    pairs: Count
    tag: str | None  # put before every source sentence
    sha256s: tuple[Sha256, ...]  # hashes of the corpus files as they were read


class SpecialIds(Written):
    pad: Count
    unk: Count
    bos: Count
    eos: Count


class ShardInfo(Written):
    name: RelativeName
    bytes: Count
    sha256: Sha256
    corpus: Count  # position in `corpora`
    pairs: Annotated[int, Field(ge=1)]
    first_pair: Count  # number of its first pair in the manifest's order
    tokens: dict[str, Count]  # by field, EOS included


class CorpusInfo(Written):
    """A training corpus as it was really read, whether or not the recipe pins it."""

    name: str
    tag: str | None  # put before every source sentence
    sha256s: tuple[Sha256, ...]  # hashes of its files, decompressed
    read: Count
    kept: Count
    dropped: dict[str, Count]  # pairs by the first reason that applied


class Tombstone(Written):
    """A shard that is left out; it keeps its place in the order, and its pairs their numbers."""

    shard: RelativeName
    reason: str
    parent: Sha256  # identity of the manifest without this tombstone


class Manifest(Written):
    """What a prepared dataset holds and what it was made from."""

    format: Literal["transloom-dataset/2"] = FORMAT
    fields: tuple[FieldInfo, ...]
    tokenizers: dict[str, TokenizerInfo]  # by field; a joint tokenizer stands under both
    special_ids: SpecialIds
    corpora: tuple[CorpusInfo, ...]
    # By field: how many pairs have length 0, 1, 2, ...; fewer numbers for documents.
    lengths: dict[str, tuple[Count, ...] | DocumentLengths]
    cleaning: FileInfo
    heldout: dict[str, HeldOutInfo]
    preparation: dict[str, Any]  # the settings of the recipe that differ from their defaults
    shards: tuple[ShardInfo, ...]
    tombstones: tuple[Tombstone, ...] = ()

    _identity: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        next_pair, corpus = 0, 0
        kept = [0] * len(self.corpora)
        for shard in self.shards:
            if shard.first_pair != next_pair:
                raise ValueError(
                    f"{shard.name} starts at pair {shard.first_pair}, expected {next_pair}"
                )
            if not corpus <= shard.corpus < len(self.corpora):
                raise ValueError(f"{shard.name} is of corpus {shard.corpus} after {corpus}")
            corpus = shard.corpus
            next_pair += shard.pairs
            kept[corpus] += shard.pairs
        for info, pairs in zip(self.corpora, kept, strict=True):
            if info.kept != pairs:
                raise ValueError(
                    f"shards of {info.name} have {counted(pairs, 'pair')}, not {info.kept}"
                )
        names = {shard.name for shard in self.shards} if self.tombstones else set()
        for tombstone in self.tombstones:
            if tombstone.shard not in names:
                raise ValueError(f"there is no shard {tombstone.shard} to leave out")
        return self

    @property
    def identity(self) -> str:
        """sha256 of the manifest file that this object was loaded from."""
        assert self._identity, "only a loaded manifest has an identity"
        return self._identity

    @property
    def origin(self) -> str:
        """Identity of the manifest before any shard was left out."""
        return self.tombstones[0].parent if self.tombstones else self.identity

    @property
    def pairs(self) -> int:
        """Pairs of all corpora, those of left-out shards included."""
        return sum(corpus.kept for corpus in self.corpora)

    @property
    def noun(self) -> str:
        """What an example is called."""
        return "document" if any(field.is_document for field in self.fields) else "pair"

    @property
    def left_out(self) -> frozenset[str]:
        """Names of the shards under a tombstone."""
        return frozenset(tombstone.shard for tombstone in self.tombstones)

    @classmethod
    def load(cls, store: DatasetStore, identity: str | None = None) -> Self:
        """Reads the manifest of a dataset.

        Args:
            identity: the identity of the manifest that is meant; None: any.

        Raises:
            DatasetError: the dataset has no readable manifest, or another than meant.
        """
        data = store.read_manifest()
        if identity and hashlib.sha256(data).hexdigest() != identity:
            data = _read_again(store, identity)
        try:
            content = json.loads(data)
            found_format = content.get("format") if isinstance(content, dict) else None
            if found_format != FORMAT:
                raise DatasetError(
                    f"{store.location} has a manifest of format {found_format!r}, and this version "
                    f"reads {FORMAT!r}. Read it with the version that wrote it, or prepare the "
                    "dataset again with --overwrite."
                )
            manifest = cls.model_validate(content)
        except ValueError as error:
            raise DatasetError(
                f"{MANIFEST_NAME} of {store.location} is damaged: {_in_one_line(error)}. Restore "
                "it from a copy, or run `transloom prepare --overwrite`: the same corpora give the "
                "same bytes."
            ) from error
        manifest._identity = hashlib.sha256(data).hexdigest()
        return manifest

    def to_bytes(self) -> bytes:
        """The manifest file: JSON with a line for each shard and each histogram."""
        values = self.model_dump(mode="json")
        lengths = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in values.pop("lengths").items()]
        shards = ["  " + json.dumps(shard) for shard in values.pop("shards")]
        text = json.dumps(values, ensure_ascii=False, indent=1).removesuffix("\n}")
        text += ',\n "lengths": {\n' + ",\n".join(lengths) + "\n }"
        text += ',\n "shards": [\n' + ",\n".join(shards) + "\n ]\n}\n"
        return text.encode()

    def descends_from(self, identity: str) -> bool:
        """Whether this is the manifest of that identity, or that one with shards left out since.

        A child that differs from the parent in anything else is no descendant.
        """
        if identity == self._identity:
            return True
        parents = [tombstone.parent for tombstone in self.tombstones]
        if identity not in parents:
            return False
        parent = self.model_copy(update={"tombstones": self.tombstones[: parents.index(identity)]})
        return hashlib.sha256(parent.to_bytes()).hexdigest() == identity

    def left_out_since(self, identity: str) -> frozenset[str]:
        """Names of the shards that were left out after the manifest of that identity."""
        since = [tombstone.parent for tombstone in self.tombstones]
        start = since.index(identity) if identity in since else len(since)
        return frozenset(tombstone.shard for tombstone in self.tombstones[start:])

    def longest(self) -> dict[str, int]:
        """The length of the longest sequence of each field, EOS included."""
        return {
            field: lengths.longest if isinstance(lengths, DocumentLengths) else len(lengths) - 1
            for field, lengths in self.lengths.items()
        }

    def shard_pairs(self) -> list[Int64Array]:
        """The pairs of each corpus's shards, those of left-out shards included."""
        pairs: list[list[int]] = [[] for _ in self.corpora]
        for shard in self.shards:
            pairs[shard.corpus].append(shard.pairs)
        return [np.array(numbers, dtype=np.int64) for numbers in pairs]

    def files(self) -> Iterator[tuple[str, str]]:
        """Name and sha256 of every file of the dataset, except the manifest and left-out shards."""
        described: list[FileInfo] = [self.cleaning, *self.tokenizers.values()]
        described += [info for heldout in self.heldout.values() for info in heldout.files.values()]
        yield from dict.fromkeys((info.file, info.sha256) for info in described)
        left_out = self.left_out
        yield from ((s.name, s.sha256) for s in self.shards if s.name not in left_out)

    def differences(self, settings: DataSettings) -> list[str]:
        """Settings that differ between this dataset and a recipe, with both values."""
        return differences(self.preparation, preparation_settings(settings))


def kept_name(identity: str) -> str:
    """The name under which a manifest is kept when another one takes its place."""
    return f"manifest-{identity[:16]}.json"


def _read_again(store: DatasetStore, identity: str) -> bytes:
    """Reads the manifest that was meant, which a child has replaced or a network has garbled."""
    if store.holds(kept_name(identity), identity):
        return store.read(kept_name(identity), identity)
    return store.read(MANIFEST_NAME, identity)


def open_dataset(data: DataConfig, identity: str | None = None) -> tuple[DatasetStore, Manifest]:
    """The dataset that a recipe names.

    Args:
        identity: the identity of its manifest, where it is known.

    Raises:
        DatasetError: there is no such dataset.
    """
    store = open_store(
        data.dataset,
        cache=cache_folder(data.cache),
        cache_bytes=int(data.cache_gigabytes * 1e9),
    )
    return store, Manifest.load(store, identity)


def _in_one_line(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'the whole'}: {problem['msg']}"
        for problem in error.errors()
    )
