"""Dataset folder and its table of contents, `manifest.json`.

    DATASET/
      manifest.json                  this file; its sha256 is the dataset's identity
      shards.columns                 the manifest's list of shards, if it is long
      tokenizer.model                or tokenizer.src.model and tokenizer.tgt.model
      shards/train-00000.tar ...     see shards.py; each contains pairs of one corpus
      heldout/validation.src.txt ... the held-out text, so that training needs only this folder
      cleaning.json                  report of the dropped examples

The manifest lists every other file with its sha256, so its own hash identifies the content of all
files.

With `MIN_SHARDS_FOR_COLUMNS` shards or more, the list of shards is a file of columns
(shard_columns.py), which loads twenty times faster. `manifest.json` then has the format `…/3`, and
the sha256 of that file. The identity does not depend on the form: it is always the sha256 of the
JSON text with all shards. `Manifest.load` generates this text from the columns and hashes it.

A tombstone in a child manifest excludes a permanently lost shard from training. Apart from its new
tombstones, a child equals its parent. The pairs of the other shards therefore keep their order and
their numbers, and removing the tombstones restores the parent manifest byte for byte.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import (
    GetPydanticSchema,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic_core import core_schema

from data_pipeline.arrays import BoolArray, Int64Array
from data_pipeline.config.data import DataConfig
from data_pipeline.dataset.manifest_header import (
    FORMAT,
    DocumentLengths,
    FieldInfo,
    FileInfo,
    ManifestHeader,
    Many,
    ShardInfo,
    ShardTable,
)
from data_pipeline.dataset.shard_columns import ShardColumns
from data_pipeline.errors import DatasetError, DatasetFileError
from data_pipeline.storage.locations import cache_folder
from data_pipeline.storage.regular_files import write_atomically, write_durably
from data_pipeline.storage.store import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    DatasetStore,
    open_store,
)
from foundation.file_model import JsonLimits, error_summary, parse_json
from foundation.wording import counted, join_items

# Enough for about 250,000 shards, or a billion pairs; each shard has at least ten values.
LIMITS = JsonLimits(bytes=MAX_MANIFEST_BYTES, values=4_000_000)
FORMAT_WITH_COLUMNS = "transloom-dataset/3"
# Shorter lists stay in the JSON, which earlier versions can read and which loads in 0.06 s.
MIN_SHARDS_FOR_COLUMNS = 4096


def _shard_columns(value: object, parse: ValidatorFunctionWrapHandler) -> ShardColumns:
    return value if isinstance(value, ShardColumns) else ShardColumns.of(parse(value))


_ShardColumns = Annotated[
    ShardColumns,
    GetPydanticSchema(
        lambda _, handler: core_schema.no_info_wrap_validator_function(
            _shard_columns,
            handler(Many[ShardInfo]),
        )
    ),
]


class Manifest(ManifestHeader):
    """Contents and origin of a prepared dataset, with all its shards."""

    shards: _ShardColumns

    _table: ShardTable | None = PrivateAttr(default=None)  # the file with the shards, if any

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        shards, corpora = self.shards, len(self.corpora)
        least = np.concatenate((np.zeros(1, dtype=np.int64), shards.corpus[:-1]))
        wrong = (shards.corpus < least[: len(shards)]) | (shards.corpus >= corpora)
        if wrong.any():
            number = int(np.argmax(wrong))
            raise ValueError(
                f"{shards.name(number)} has corpus number {shards.corpus[number]}, expected "
                f"{least[number]} to {corpora - 1}"
            )
        for info, pairs in zip(self.corpora, self.shard_pairs(), strict=True):
            if info.kept != (kept := int(pairs.sum())):
                raise ValueError(
                    f"shards of {info.name} have {counted(kept, 'pair')}, expected {info.kept}"
                )
        names = set(shards.names()) if self.tombstones else set()
        for tombstone in self.tombstones:
            if tombstone.shard not in names:
                raise ValueError(f"a tombstone names {tombstone.shard}, which is not a shard")
        return self

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        """Check the keys of all mappings by field, the lengths, and the special ids."""
        names = [field.name for field in self.fields]
        keys_by_field = [
            ("tokenizers", list(self.tokenizers)),
            ("lengths", list(self.lengths)),
            *((f"files of {use}", list(heldout.files)) for use, heldout in self.heldout.items()),
        ]
        if len(self.shards):
            keys_by_field.insert(2, (f"tokens of {self.shards.name(0)}", list(self.shards.tokens)))
        for what, found in keys_by_field:
            if not names or set(found) != set(names):
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
        """Return this manifest without its shards, but with its identity."""
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
        if identity is None:
            return cls._parse(store, data)
        try:
            return cls._parse_expected(store, data, identity)
        except _OtherManifestError:
            # Either a child manifest has replaced the expected one, which then has an archived
            # name, or the transfer was corrupted.
            archived = archived_name(identity)
            if store.holds(archived, identity):
                return cls._parse(store, store.read(archived, identity))
            return store.read_parsed(
                MANIFEST_NAME, lambda data: cls._parse_expected(store, data, identity)
            )

    @classmethod
    def _parse_expected(cls, store: DatasetStore, data: bytes, identity: str) -> Self:
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            manifest = cls._parse(store, data)
        except DatasetFileError:
            raise
        except DatasetError as error:
            if sha256 == identity:
                raise
            raise _OtherManifestError(identity, sha256) from error
        if manifest.identity != identity:
            raise _OtherManifestError(identity, manifest.identity)
        return manifest

    @classmethod
    def _parse(cls, store: DatasetStore, data: bytes) -> Self:
        table = None
        try:
            content = parse_json(data, LIMITS)
            found_format = content.get("format") if isinstance(content, dict) else None
            if found_format == FORMAT_WITH_COLUMNS:
                table = ShardTable.model_validate(content.get("shards"))
                columns = ShardColumns.from_bytes(
                    store.read(table.file, table.sha256, table.bytes), table
                )
                content |= {"format": FORMAT, "shards": columns}
            elif found_format != FORMAT:
                raise DatasetError(
                    f"{store.location} has a manifest of format {found_format!r:.80}, but this "
                    f"version reads {FORMAT!r} and {FORMAT_WITH_COLUMNS!r}. Use the version of "
                    "transloom that wrote the dataset, or prepare the dataset again with "
                    "--overwrite."
                )
            manifest = cls.model_validate(content)
        except ValueError as error:
            problem = error_summary(error) if isinstance(error, ValidationError) else str(error)
            damaged = f"{MANIFEST_NAME} with {table.file}" if table else MANIFEST_NAME
            raise DatasetError(
                f"{damaged} of {store.location} is damaged: {problem}. Restore "
                "it from a copy, or run `transloom prepare --overwrite`: the same corpora produce "
                "the same bytes."
            ) from error
        manifest._table = table
        manifest._identity = manifest._hash_of_json() if table else hashlib.sha256(data).hexdigest()
        return manifest

    def save_new(self, folder: Path) -> None:
        """Write the manifest of a new dataset; many shards are written as a file of columns."""
        if len(self.shards) >= MIN_SHARDS_FOR_COLUMNS and self.shards.all_names.max() < 128:
            data = self.shards.to_bytes()
            self._table = self.shards.table(hashlib.sha256(data).hexdigest())
            write_durably(folder / self._table.file, data)
        self.save(folder)

    def save(self, folder: Path) -> None:
        """Replace `manifest.json` atomically; the shards stay in JSON or in their file."""
        write_atomically(folder / MANIFEST_NAME, self._file_bytes())

    def _file_bytes(self) -> bytes:
        if self._table is None:
            return self.to_bytes()
        text = self._json_text(FORMAT_WITH_COLUMNS)
        return f"{text}{json.dumps(self._table.model_dump(mode='json'))}\n}}\n".encode()

    def to_bytes(self) -> bytes:
        """Return the JSON with all shards: one line for each shard and each histogram."""
        return b"".join(self._json_chunks())

    def _hash_of_json(self) -> str:
        digest = hashlib.sha256()
        for chunk in self._json_chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def _json_chunks(self) -> Iterator[bytes]:
        yield f"{self._json_text(FORMAT)}[\n".encode()
        yield from self.shards.json_lines()
        yield b"\n ]\n}\n"

    def _json_text(self, manifest_format: str) -> str:
        """Return the JSON up to the list of shards, which is its last value."""
        values = self.model_dump(mode="json", exclude={"shards"}) | {"format": manifest_format}
        lengths = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in values.pop("lengths").items()]
        text = json.dumps(values, ensure_ascii=False, indent=1).removesuffix("\n}")
        return text + ',\n "lengths": {\n' + ",\n".join(lengths) + '\n },\n "shards": '

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
        return parent._hash_of_json() == identity

    def shard_pairs(self) -> list[Int64Array]:
        """Return the number of pairs of each shard, by corpus, left-out shards included."""
        bounds = np.searchsorted(self.shards.corpus, np.arange(len(self.corpora) + 1))
        return np.split(self.shards.pairs, bounds)[1:-1]

    def shards_in_training(self) -> BoolArray:
        """Return for each shard whether it has no tombstone, [shards]."""
        kept = np.ones(len(self.shards), dtype=np.bool_)
        if left_out := self.left_out:
            kept[[i for i, name in enumerate(self.shards.names()) if name in left_out]] = False
        return kept

    def columns_files(self) -> list[FileInfo]:
        """Return the file that has the list of shards, if it is not in `manifest.json`."""
        return [self._table] if self._table else []

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield the name and sha256 of each file, except the manifest and left-out shards."""
        described: list[FileInfo] = [self.cleaning, *self.tokenizers.values()]
        described += [info for heldout in self.heldout.values() for info in heldout.files.values()]
        described += self.columns_files()
        yield from dict.fromkeys((info.file, info.sha256) for info in described)
        left_out = self.left_out
        shards = zip(self.shards.names(), self.shards.sha256, strict=True)
        yield from ((name, row.tobytes().hex()) for name, row in shards if name not in left_out)


class _OtherManifestError(DatasetFileError):
    """The manifest is not the expected one."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(MANIFEST_NAME, f"sha256 {expected}", f"sha256 {found}")


def archived_name(identity: str) -> str:
    """Return the file name under which a manifest is kept after a child has replaced it."""
    return f"manifest-{identity[:16]}.json"


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
