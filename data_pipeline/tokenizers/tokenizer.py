"""Interface of tokenizers, and functions that train or load them.

    texts ──train_tokenizer──▶ Tokenizer
    a recipe's existing model ──load_existing──▶ Tokenizer
    Tokenizer.model, written into the dataset ──load_tokenizers──▶ the same Tokenizer

SentencePiece models (sentence_piece.py) and Marian's tokenizers (marian.py) are built in. An
extension may register another class, which a recipe then names with tokenizer.type::

    class Bytes(Tokenizer):
        kind = "bytes"
        ...

    TOKENIZERS.register("bytes", Bytes)

A tag is a token that is only inserted before a text. No text encodes to it, and decoding omits it.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from data_pipeline.arrays import FieldArrays, Int32Array, UInt64Array
from data_pipeline.config.data import SENTENCE_PIECE_TYPES, TOKENIZERS, TokenizerConfig
from data_pipeline.dataset.manifest_header import ManifestHeader, SpecialIds
from data_pipeline.errors import DatasetFileError, TokenizerError
from data_pipeline.storage.regular_files import read_regular
from data_pipeline.storage.store import DatasetStore
from foundation.wording import format_value


class Tokenizer(ABC):
    """Converter of texts to token ids and back, fully determined by `model`.

    Attributes:
        kind: the name under which an extension registers the class; None for SentencePiece.
        model: the bytes written into the dataset, in the format of the class.
        name: the model's name in errors.
        special_ids: pad, unk, bos and eos, which all tokenizers have.
        added: special pieces that the class adds because `model` lacks them.
    """

    added: tuple[str, ...] = ()
    kind: ClassVar[str | None]
    model: bytes
    name: str
    special_ids: SpecialIds

    @abstractmethod
    def __init__(self, model: bytes, name: str) -> None:
        """Load a model.

        Raises:
            TokenizerError: the bytes are not such a model, or a special id is missing.
        """

    @classmethod
    @abstractmethod
    def train(
        cls, texts: Iterable[str], config: TokenizerConfig, name: str, tags: Sequence[str] = ()
    ) -> Self:
        """Train a model on texts in their order; equal texts give equal bytes.

        Args:
            tags: pieces that are only inserted before texts; they count towards the vocabulary
                size.

        Raises:
            TokenizerError: the model cannot be trained.
        """

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """Number of ids; all ids are smaller."""

    @abstractmethod
    def encode(self, sentences: list[str]) -> list[Int32Array]:
        """Return the token ids of each text, without BOS and EOS."""

    @abstractmethod
    def encode_field(self, sentences: list[str], tag: str | None = None) -> FieldArrays:
        """Encode texts as one flat field, each ending in EOS.

        Args:
            tag: the piece put before each text, or None.

        Raises:
            TokenizerError: the model lacks the tag.
        """

    def sample_field(
        self, sentences: list[str], seeds: UInt64Array, alpha: float, tag: str | None = None
    ) -> FieldArrays:
        """Encode like `encode_field`, but segment text i at random as determined by `seeds[i]`.

        Raises:
            TokenizerError: the tokenizer does not support random segmentation.
        """
        raise TokenizerError(
            f"{self.name} is of the kind {self.kind}, which does not support subword sampling, but "
            f"tokenizer.sampling.alpha is {alpha}. Set tokenizer.sampling.alpha to 0."
        )

    @abstractmethod
    def tag_id(self, tag: str) -> int:
        """Return the id of a tag.

        Raises:
            TokenizerError: the tag is not a piece, or the id could also come from text.
        """

    @abstractmethod
    def decode(self, ids: list[list[int]]) -> list[str]:
        """Return the text of each sequence; special ids, except unk, are omitted."""

    @abstractmethod
    def piece(self, number: int) -> str:
        """Return the display form of a token, given by its id."""

    def pieces(self, sentence: str) -> list[str]:
        """Return the tokens of a sentence in their display form.

        An unknown token is shown as its characters, or as the unk piece if the tokenizer cannot map
        the token back to characters.
        """
        (ids,) = self.encode([sentence])
        return [self.piece(number) for number in ids.tolist()]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a model from a file.

        Raises:
            TokenizerError: the file cannot be read.
        """
        try:
            return cls(read_regular(path), str(path))
        except OSError as error:
            raise TokenizerError(
                f"The {cls.kind or 'SentencePiece'} model {path} cannot be read "
                f"({error.strerror}). Correct tokenizer.model, or remove it to train a model."
            ) from error

    def of_field(self, place: int) -> "Tokenizer":
        """Return the tokenizer for one of the fields that share this model; by default, `self`.

        Args:
            place: index of the field among the task's fields: 0 for a source, 1 for a target.
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
    """Open the tokenizer of a dataset's model.

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
    """Train a model of the recipe's type on the sentences in their order.

    Args:
        tags: pieces that are only inserted before texts; they count towards the vocabulary size.

    Raises:
        TokenizerError: the model cannot be trained.
    """
    return _class_of(config.type).train(sentences, config, name, tags)


def load_existing(config: TokenizerConfig) -> Tokenizer:
    """Load the recipe's existing model and check its hash and vocabulary size.

    Raises:
        TokenizerError: the model cannot be read, or differs from the recipe.
    """
    assert config.model is not None
    tokenizer = _class_of(config.type).load(Path(config.model).expanduser())
    found = hashlib.sha256(tokenizer.model).hexdigest()
    if found != config.model_sha256:
        raise TokenizerError(
            f"tokenizer.model {config.model} has sha256 {found}, but tokenizer.model_sha256 is "
            f"{config.model_sha256}. Use the model with that hash, or correct "
            "tokenizer.model_sha256."
        )
    if tokenizer.vocabulary_size != config.vocabulary_size:
        added = ", ".join(tokenizer.added)
        raise TokenizerError(
            f"tokenizer.model {config.model} has {tokenizer.vocabulary_size} pieces"
            f"{f', with {added}, which the file lacks' if added else ''}, but "
            f"tokenizer.vocabulary_size is {config.vocabulary_size}. Set "
            f"tokenizer.vocabulary_size to {tokenizer.vocabulary_size}."
        )
    return tokenizer


def shared_tokenizer(tokenizers: Mapping[str, Tokenizer]) -> Tokenizer:
    """Return the tokenizer that all fields share, for tasks with a single tokenizer."""
    return next(iter(tokenizers.values()))


def load_tokenizers(store: DatasetStore, manifest: ManifestHeader) -> dict[str, Tokenizer]:
    """Load and verify the dataset's tokenizers, by field; a joint model is read only once.

    Raises:
        DatasetFileError: a tokenizer does not match the manifest.
        TokenizerError, ExtensionError: a tokenizer cannot be used.
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
