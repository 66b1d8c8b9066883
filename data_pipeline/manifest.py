"""The dataset folder and its table of contents, `manifest.json`.

    DATASET/
      manifest.json                  this file; its sha256 is the dataset's identity
      tokenizer.model                or tokenizer.src.model and tokenizer.tgt.model
      lengths.npy                    int32 [pairs, fields], EOS included
      shards/train-00000.tar ...     see shards.py
      heldout/validation.src.txt ... the held-out text, so that training needs only this folder

The manifest names every other file with its sha256, so whoever trusts the manifest's hash can
trust them all.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from data_pipeline.config import DataConfig, Sha256, TokenizerConfig
from data_pipeline.errors import DatasetError
from data_pipeline.plan import Int32Array

MANIFEST_NAME = "manifest.json"
FORMAT: Literal["transloom-dataset/1"] = "transloom-dataset/1"
SOURCE, TARGET = "src", "tgt"

# Names of files relative to the dataset folder, which they cannot leave.
RelativeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$")]
Count = Annotated[int, Field(ge=0)]


class ManifestPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldInfo(ManifestPart):
    """One sequence of every pair, by the name it has in shards and batches."""

    name: str
    role: Literal["source", "target"]
    language: str


class FileInfo(ManifestPart):
    file: RelativeName
    sha256: Sha256


class TokenizerInfo(FileInfo):
    vocabulary_size: Count


class HeldOutInfo(FileInfo):
    lines: Count


class SpecialIds(ManifestPart):
    pad: Count
    unk: Count
    bos: Count
    eos: Count


class ShardInfo(ManifestPart):
    name: RelativeName
    bytes: Count
    sha256: Sha256
    pairs: Count
    first_pair: Count  # number of its first pair in the manifest's order
    tokens: dict[str, Count]  # by field, EOS included


class CorpusInfo(ManifestPart):
    """What was really read, whether or not the recipe pins it."""

    use: str  # "train", "validation" or the name of a test set
    source_sha256: Sha256
    target_sha256: Sha256
    pairs: Count


class Counts(ManifestPart):
    read: Count
    kept: Count
    dropped: dict[str, Count]  # by reason


class Manifest(ManifestPart):
    """What a prepared dataset holds and what it was made from."""

    format: Literal["transloom-dataset/1"] = FORMAT
    fields: tuple[FieldInfo, ...]
    tokenizers: dict[str, TokenizerInfo]  # by field; a joint tokenizer stands under both
    special_ids: SpecialIds
    counts: Counts
    lengths: FileInfo
    heldout: dict[str, dict[str, HeldOutInfo]]  # by set, then by field
    preparation: dict[str, dict[str, Any]]  # identity settings of `data` and `tokenizer`
    corpora: tuple[CorpusInfo, ...]
    shards: tuple[ShardInfo, ...]

    _identity: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        next_pair = 0
        for shard in self.shards:
            if shard.first_pair != next_pair:
                raise ValueError(
                    f"{shard.name} starts at pair {shard.first_pair}, expected {next_pair}"
                )
            next_pair += shard.pairs
        if next_pair != self.counts.kept:
            raise ValueError(f"shards have {next_pair} pairs, counts.kept is {self.counts.kept}")
        return self

    @property
    def identity(self) -> str:
        """sha256 of the manifest file that this object was loaded from."""
        assert self._identity, "only a loaded manifest has an identity"
        return self._identity

    @property
    def pairs(self) -> int:
        return self.counts.kept

    @classmethod
    def load(cls, dataset: Path) -> Self:
        """Raises DatasetError when the folder holds no readable manifest."""
        path = dataset / MANIFEST_NAME
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DatasetError(
                f"There is no prepared dataset at {dataset}: {path} cannot be read "
                f"({error.strerror}). Run `transloom prepare` with the recipe first, or correct "
                "data.dataset."
            ) from error
        try:
            content = json.loads(data)
            found_format = content.get("format") if isinstance(content, dict) else None
            if found_format != FORMAT:
                raise DatasetError(
                    f"{path} has format {found_format!r}, and this version reads {FORMAT!r}. Read "
                    "it with the version that wrote it, or prepare the dataset again."
                )
            manifest = cls.model_validate(content)
        except ValueError as error:
            raise DatasetError(
                f"{path} is damaged: {_in_one_line(error)}. Restore it from a copy, or run "
                "`transloom prepare --overwrite`: the same corpora give the same bytes."
            ) from error
        manifest._identity = hashlib.sha256(data).hexdigest()
        return manifest

    def save(self, dataset: Path) -> None:
        """Writes manifest.json whole or not at all."""
        text = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=1) + "\n"
        write_whole(dataset / MANIFEST_NAME, text)

    def files(self) -> Iterator[tuple[str, str]]:
        """Name and sha256 of every file of the dataset but the manifest itself."""
        described = [self.lengths, *self.tokenizers.values()]
        described += [info for texts in self.heldout.values() for info in texts.values()]
        yield from dict.fromkeys((info.file, info.sha256) for info in described)
        yield from ((shard.name, shard.sha256) for shard in self.shards)

    def verify(self, dataset: Path) -> None:
        """Reads every file; raises DatasetError for the first that is missing or changed."""
        for name, sha256 in self.files():
            read_verified(dataset, name, sha256)

    def differences(self, data: DataConfig, tokenizer: TokenizerConfig) -> list[str]:
        """Settings that differ between this dataset and a recipe, with both values."""
        mine = _flatten(self.preparation)
        theirs = _flatten(preparation_settings(data, tokenizer))
        return [
            f"{name}: {mine.get(name, 'not set')!r} in the dataset, "
            f"{theirs.get(name, 'not set')!r} in the recipe"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]

    def load_lengths(self, dataset: Path) -> Int32Array:
        """The verified lengths sidecar, memory-mapped: int32 [pairs, fields]."""
        read_verified(dataset, self.lengths.file, self.lengths.sha256)
        path = dataset / self.lengths.file
        lengths = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        if lengths.shape != (self.pairs, len(self.fields)) or lengths.dtype != np.int32:
            raise DatasetError(
                f"{path} has {lengths.dtype} {lengths.shape}, expected "
                f"int32 {(self.pairs, len(self.fields))}. Prepare the dataset again."
            )
        return lengths


def preparation_settings(data: DataConfig, tokenizer: TokenizerConfig) -> dict[str, dict[str, Any]]:
    """The settings that decide a dataset's bytes."""
    return {"data": _identity_settings(data), "tokenizer": _identity_settings(tokenizer)}


def _identity_settings(config: BaseModel) -> dict[str, Any]:
    values = config.model_dump(mode="json")
    return {
        name: values[name]
        for name, field in type(config).model_fields.items()
        if "identity" in field.metadata or isinstance(getattr(config, name), BaseModel)
    }


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = [(f"{name}.{key}".lstrip("."), item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(f"{name}[{number}]", item) for number, item in enumerate(value)]
    else:
        return {name: value}
    return {key: leaf for child, item in items for key, leaf in _flatten(item, child).items()}


def _in_one_line(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'the whole'}: {problem['msg']}"
        for problem in error.errors()
    )


def read_verified(dataset: Path, name: str, sha256: str) -> bytes:
    """A file of the dataset. Raises DatasetError when it is missing or its hash is wrong."""
    path = dataset / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path} belongs to the dataset and cannot be read ({error.strerror}). Restore it "
            "from a copy, or prepare the dataset again."
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DatasetError(
            f"{path} is damaged: the manifest has sha256 {sha256}, the file's {len(data):,} bytes "
            f"have {found}. Restore it from a copy, or prepare the dataset again."
        )
    return data


def write_durably(path: Path, data: bytes) -> str:
    """Writes a file through to the disk and returns its sha256."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all, whatever is killed meanwhile."""
    unfinished = path.with_name(path.name + ".unfinished")
    write_durably(unfinished, text.encode())
    unfinished.replace(path)
