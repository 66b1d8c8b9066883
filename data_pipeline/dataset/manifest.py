"""Dataset folder and its table of contents, `manifest.json`.

    DATASET/
      manifest.json                  this file; its sha256 is the dataset's identity
      tokenizer.model                or tokenizer.src.model and tokenizer.tgt.model
      shards/train-00000.tar ...     see shards.py; each contains pairs of one corpus
      heldout/validation.src.txt ... the held-out text, so that training needs only this folder
      cleaning.json                  report of the dropped examples

The manifest lists every other file with its sha256, so its own hash identifies the content of all
files.

A tombstone in a child manifest excludes a permanently lost shard from training. Apart from its new
tombstones, a child equals its parent. The pairs of the other shards therefore keep their order and
their numbers, and removing the tombstones restores the parent manifest byte for byte.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from data_pipeline.arrays import Int64Array
from data_pipeline.config.data import DataConfig
from data_pipeline.dataset.manifest_header import FORMAT, ManifestHeader
from data_pipeline.dataset.manifest_records import (
    DocumentLengths,
    FieldInfo,
    FileInfo,
    ShardInfo,
)
from data_pipeline.errors import DatasetError
from data_pipeline.storage.locations import cache_folder
from data_pipeline.storage.store import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    DatasetStore,
    open_store,
)
from foundation.file_model import error_summary
from foundation.strict_json import JsonLimits, parse_json
from foundation.wording import counted, join_items

# Enough for about 250,000 shards, or a billion pairs; each shard has at least ten values.
LIMITS = JsonLimits(bytes=MAX_MANIFEST_BYTES, values=4_000_000)


class Manifest(ManifestHeader):
    """Contents and origin of a prepared dataset, with all its shards."""

    shards: Annotated[tuple[ShardInfo, ...], Field(fail_fast=True)]

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
                raise ValueError(
                    f"{shard.name} has corpus number {shard.corpus}, expected {corpus} to "
                    f"{len(self.corpora) - 1}"
                )
            corpus = shard.corpus
            next_pair += shard.pairs
            kept[corpus] += shard.pairs
        for info, pairs in zip(self.corpora, kept, strict=True):
            if info.kept != pairs:
                raise ValueError(
                    f"shards of {info.name} have {counted(pairs, 'pair')}, expected {info.kept}"
                )
        names = {shard.name for shard in self.shards} if self.tombstones else set()
        for tombstone in self.tombstones:
            if tombstone.shard not in names:
                raise ValueError(f"a tombstone names {tombstone.shard}, which is not a shard")
        return self

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        """Check the keys of all mappings by field, the lengths, and the special ids."""
        names = [field.name for field in self.fields]
        mappings_by_field: list[tuple[str, Mapping[str, Any]]] = [
            ("tokenizers", self.tokenizers),
            ("lengths", self.lengths),
            *((f"tokens of {shard.name}", shard.tokens) for shard in self.shards),
            *((f"files of {use}", heldout.files) for use, heldout in self.heldout.items()),
        ]
        for what, found in mappings_by_field:
            if not names or found.keys() != set(names):
                raise ValueError(
                    f"{what}: expected the fields {join_items(names)}, found {join_items(found)}"
                )
        for field in self.fields:
            _check_lengths(field, self.lengths[field.name], self.pairs)
            size = self.tokenizers[field.name].vocabulary_size
            if (largest := max(self.special_ids.model_dump().values())) >= size:
                raise ValueError(
                    f"special_ids: {largest} is not below the {size} ids of {field.name}"
                )
        return self

    @property
    def shard_count(self) -> int:
        return len(self.shards)

    def header(self) -> ManifestHeader:
        """Return everything but the shards, with the identity of this manifest."""
        values = {name: getattr(self, name) for name in ManifestHeader.model_fields}
        header = ManifestHeader.model_construct(**values)  # already validated
        header._identity = self._identity
        header._shard_count = self.shard_count
        return header

    @classmethod
    def load(cls, store: DatasetStore, identity: str | None = None) -> Self:
        """Read the manifest of a dataset.

        Args:
            identity: the identity of the expected manifest, or None to accept any.

        Raises:
            DatasetError: the dataset has no readable manifest, or not the expected one.
        """
        data = store.read_manifest()
        if identity and hashlib.sha256(data).hexdigest() != identity:
            data = _read_again(store, identity)
        try:
            content = parse_json(data, LIMITS)
            found_format = content.get("format") if isinstance(content, dict) else None
            if found_format != FORMAT:
                raise DatasetError(
                    f"{store.location} has a manifest of format {found_format!r:.80}, but this "
                    f"version reads {FORMAT!r}. Use the version of transloom that wrote the "
                    "dataset, or prepare the dataset again with --overwrite."
                )
            manifest = cls.model_validate(content)
        except ValueError as error:
            problem = error_summary(error) if isinstance(error, ValidationError) else str(error)
            raise DatasetError(
                f"{MANIFEST_NAME} of {store.location} is damaged: {problem}. Restore "
                "it from a copy, or run `transloom prepare --overwrite`: the same corpora produce "
                "the same bytes."
            ) from error
        manifest._identity = hashlib.sha256(data).hexdigest()
        return manifest

    def to_bytes(self) -> bytes:
        """Return the manifest file: JSON with one line for each shard and each histogram."""
        values = self.model_dump(mode="json")
        lengths = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in values.pop("lengths").items()]
        shards = ["  " + json.dumps(shard) for shard in values.pop("shards")]
        text = json.dumps(values, ensure_ascii=False, indent=1).removesuffix("\n}")
        text += ',\n "lengths": {\n' + ",\n".join(lengths) + "\n }"
        text += ',\n "shards": [\n' + ",\n".join(shards) + "\n ]\n}\n"
        return text.encode()

    def descends_from(self, identity: str) -> bool:
        """Return whether the manifest with this identity is this one or one of its ancestors.

        A manifest differs from its ancestors only by additional tombstones.
        """
        if identity == self._identity:
            return True
        parents = [tombstone.parent for tombstone in self.tombstones]
        if identity not in parents:
            return False
        parent = self.model_copy(update={"tombstones": self.tombstones[: parents.index(identity)]})
        return hashlib.sha256(parent.to_bytes()).hexdigest() == identity

    def shard_pairs(self) -> list[Int64Array]:
        """Return the number of pairs of each shard, by corpus, left-out shards included."""
        pairs: list[list[int]] = [[] for _ in self.corpora]
        for shard in self.shards:
            pairs[shard.corpus].append(shard.pairs)
        return [np.array(numbers, dtype=np.int64) for numbers in pairs]

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield the name and sha256 of each file, except the manifest and left-out shards."""
        described: list[FileInfo] = [self.cleaning, *self.tokenizers.values()]
        described += [info for heldout in self.heldout.values() for info in heldout.files.values()]
        yield from dict.fromkeys((info.file, info.sha256) for info in described)
        left_out = self.left_out
        yield from ((s.name, s.sha256) for s in self.shards if s.name not in left_out)


def archived_name(identity: str) -> str:
    """Return the file name under which a manifest is kept after a child has replaced it."""
    return f"manifest-{identity[:16]}.json"


def _read_again(store: DatasetStore, identity: str) -> bytes:
    """Read the manifest with this identity, after the first attempt has returned another one.

    Either a child manifest has replaced the expected one, which then has an archived name, or the
    transfer was corrupted.
    """
    if store.holds(archived_name(identity), identity):
        return store.read(archived_name(identity), identity)
    return store.read(MANIFEST_NAME, identity)


def open_dataset(data: DataConfig, identity: str | None = None) -> tuple[DatasetStore, Manifest]:
    """Open the dataset that a recipe names.

    Args:
        identity: the identity of the expected manifest, or None to accept any.

    Raises:
        DatasetError: there is no such dataset.
    """
    store = open_dataset_store(data)
    return store, Manifest.load(store, identity)


def open_dataset_store(data: DataConfig) -> DatasetStore:
    """Open the files of the dataset that a recipe names, without reading its manifest.

    Raises:
        DatasetError: the location cannot be opened.
    """
    return open_store(
        data.dataset,
        cache=cache_folder(data.cache),
        cache_bytes=int(data.cache_gigabytes * 1e9),
    )


def _check_lengths(
    field: FieldInfo, lengths: tuple[int, ...] | DocumentLengths, pairs: int
) -> None:
    """Check that a histogram has its field's form and counts every example once.

    Raises:
        ValueError: the form is wrong, or the counts do not sum to `pairs`.
    """
    if isinstance(lengths, DocumentLengths) != field.is_document:
        raise ValueError(
            f"lengths.{field.name} does not have the form of a field with the role {field.role}"
        )
    counts = lengths.counts if isinstance(lengths, DocumentLengths) else lengths
    if isinstance(lengths, DocumentLengths) and lengths.longest.bit_length() != len(counts) - 1:
        raise ValueError(
            f"lengths.{field.name}: the longest has {lengths.longest} tokens, which does not match "
            f"{len(counts)} bins of powers of two"
        )
    if sum(counts) != pairs:
        raise ValueError(f"lengths.{field.name} has {sum(counts)} examples, expected {pairs}")
