"""Tokenizers: what each of them offers, and where they come from.

    texts ──train_tokenizer──▶ Tokenizer              a recipe's existing model ──load_existing──▶ "
    Tokenizer.model, written into the dataset ──load_tokenizers──▶ the same Tokenizer

SentencePiece models (sentence_piece.py) and those of Marian (marian.py) are built in. An extension
may register a class of its own, which a recipe then names with tokenizer.type::

    class Bytes(Tokenizer):
        kind = "bytes"
        ...

    TOKENIZERS.register("bytes", Bytes)

A tag is a token that stands before a text because we put it there, never because a text contains
it, and decoding leaves it out.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from data_pipeline.arrays import FieldArrays, Int32Array, UInt64Array
from data_pipeline.config.data import SENTENCE_PIECE_TYPES, TOKENIZERS, TokenizerConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_records import SpecialIds
from data_pipeline.errors import DatasetFileError, TokenizerError
from data_pipeline.storage.regular_files import read_regular
from data_pipeline.storage.store import DatasetStore
from foundation.wording import format_value


class Tokenizer(ABC):
    """Turns texts into token ids and back. It follows from `model` alone.

    Attributes:
        kind: the name under which an extension registers the class; None for SentencePiece.
        model: what is written into the dataset, whatever it means to the class.
        name: the model's name in errors.
        special_ids: pad, unk, bos and eos, which all tokenizers have.
    """

    kind: ClassVar[str | None]
    model: bytes
    name: str
    special_ids: SpecialIds

    @abstractmethod
    def __init__(self, model: bytes, name: str) -> None:
        """Loads a model.

        Raises:
            TokenizerError: it is none, or lacks a special id.
        """

    @classmethod
    @abstractmethod
    def train(
        cls, texts: Iterable[str], config: TokenizerConfig, name: str, tags: Sequence[str] = ()
    ) -> Self:
        """Makes a model of texts in their order; equal texts give equal bytes.

        Args:
            tags: pieces of their own, which count towards the vocabulary size.

        Raises:
            TokenizerError: the model cannot be trained.
        """

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """The number of ids; all are below it."""

    @abstractmethod
    def encode(self, sentences: list[str]) -> list[Int32Array]:
        """Token ids of each text, without BOS and EOS."""

    @abstractmethod
    def encode_field(self, sentences: list[str], tag: str | None = None) -> FieldArrays:
        """All texts as one flat field, each ending in EOS, as batches have them.

        Args:
            tag: the piece put before each text.

        Raises:
            TokenizerError: the model lacks the tag.
        """

    def sample_field(
        self, sentences: list[str], seeds: UInt64Array, alpha: float, tag: str | None = None
    ) -> FieldArrays:
        """Like `encode_field`, but segments text i at random, as `seeds[i]` determines.

        Raises:
            TokenizerError: the tokenizer has no random segmentations.
        """
        raise TokenizerError(
            f"{self.name} is of the kind {self.kind}, which has no random segmentations, and "
            f"tokenizer.sampling.alpha is {alpha}. Set it to 0."
        )

    @abstractmethod
    def tag_id(self, tag: str) -> int:
        """The id of a tag.

        Raises:
            TokenizerError: no text-free piece of the model is the tag.
        """

    @abstractmethod
    def decode(self, ids: list[list[int]]) -> list[str]:
        """Text of each sequence; special ids, except unk, leave nothing behind."""

    @abstractmethod
    def piece(self, number: int) -> str:
        """A token as it is shown."""

    def pieces(self, sentence: str) -> list[str]:
        """The tokens of a sentence as they are shown, in which an unknown one has its characters.

        A tokenizer that cannot tell them shows unknown ones as it shows their id.
        """
        (ids,) = self.encode([sentence])
        return [self.piece(number) for number in ids.tolist()]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a model's file.

        Raises:
            TokenizerError: it cannot be read.
        """
        try:
            return cls(read_regular(path), str(path))
        except OSError as error:
            raise TokenizerError(
                f"The {cls.kind or 'SentencePiece'} model {path} cannot be read "
                f"({error.strerror}). Correct tokenizer.model, or leave it out to have a model "
                "trained."
            ) from error

    def of_field(self, place: int) -> "Tokenizer":
        """The tokenizer of one of the fields that share the model; most read all fields alike.

        Args:
            place: the field's, in the order of the task's fields: a source is 0, a target 1.
        """
        del place
        return self

    @property
    def pad_id(self) -> int:
        return self.special_ids.pad

    @property
    def unk_id(self) -> int:
        return self.special_ids.unk

    @property
    def bos_id(self) -> int:
        return self.special_ids.bos

    @property
    def eos_id(self) -> int:
        return self.special_ids.eos


def _class_of(kind: str) -> type[Tokenizer]:
    return TOKENIZERS[kind]


def open_tokenizer(model: bytes, name: str, kind: str | None) -> Tokenizer:
    """The tokenizer of a model of a dataset.

    Args:
        kind: see `Tokenizer`.

    Raises:
        TokenizerError: the model cannot be used.
        ExtensionError: no extension has registered the kind.
    """
    return _class_of(kind or SENTENCE_PIECE_TYPES[0])(model, name)


def train_tokenizer(
    sentences: Iterable[str], config: TokenizerConfig, name: str, tags: Sequence[str] = ()
) -> Tokenizer:
    """Trains a model of the recipe's type on the sentences in their order.

    Args:
        tags: pieces of their own, which count towards the vocabulary size.

    Raises:
        TokenizerError: the model cannot be trained.
    """
    return _class_of(config.type).train(sentences, config, name, tags)


def load_existing(config: TokenizerConfig) -> Tokenizer:
    """The recipe's existing model, checked against its hash and vocabulary size."""
    assert config.model is not None
    tokenizer = _class_of(config.type).load(Path(config.model).expanduser())
    found = hashlib.sha256(tokenizer.model).hexdigest()
    if found != config.model_sha256:
        raise TokenizerError(
            f"tokenizer.model {config.model} has sha256 {found}, and tokenizer.model_sha256 is "
            f"{config.model_sha256}. Give the model that was meant, or correct the hash."
        )
    if tokenizer.vocabulary_size != config.vocabulary_size:
        raise TokenizerError(
            f"tokenizer.model {config.model} has {tokenizer.vocabulary_size} pieces, and "
            f"tokenizer.vocabulary_size is {config.vocabulary_size}. Set it to "
            f"{tokenizer.vocabulary_size}."
        )
    return tokenizer


def shared_tokenizer(tokenizers: Mapping[str, Tokenizer]) -> Tokenizer:
    """The tokenizer that all fields share, of a task that has no other."""
    return next(iter(tokenizers.values()))


def load_tokenizers(store: DatasetStore, manifest: Manifest) -> dict[str, Tokenizer]:
    """The dataset's tokenizers by field, verified; a joint model is read once.

    Raises:
        DatasetFileError: one is not as the manifest says, which other files rely on.
        TokenizerError, ExtensionError: one cannot be used.
    """
    files = {info.file: info for info in manifest.tokenizers.values()}
    by_file = {
        file: open_tokenizer(
            store.read(file, info.sha256), f"{file} of {store.location}", info.kind
        )
        for file, info in files.items()
    }
    for info in manifest.tokenizers.values():
        size = by_file[info.file].vocabulary_size
        if size != info.vocabulary_size:
            raise DatasetFileError(info.file, f"{info.vocabulary_size:,} ids", f"{size:,}")
    tokenizers = {
        field.name: by_file[manifest.tokenizers[field.name].file].of_field(place)
        for place, field in enumerate(manifest.fields)
    }
    first = manifest.fields[0].name
    expected, found = manifest.special_ids, tokenizers[first].special_ids
    if found != expected:
        raise DatasetFileError(
            manifest.tokenizers[first].file,
            f"the ids {format_value(expected.model_dump())}",
            format_value(found.model_dump()),
        )
    return tokenizers
