"""Pieces: SentencePiece models, trained or given, behind a small interface.

Trained models have pad 0, unk 1, bos 2 and eos 3, and depend on nothing but the text, its order
and the settings. SentencePiece normalises by NFKC, so decoded text is normalised too.
"""

import hashlib
import io
from collections.abc import Iterable
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from data_pipeline.batch import FieldArrays
from data_pipeline.config import TokenizerConfig
from data_pipeline.errors import TokenizerError
from data_pipeline.manifest import Manifest, SpecialIds, read_verified
from data_pipeline.plan import Int32Array

LOG_ERRORS_ONLY = 2


class Tokenizer:
    """Turns sentences into piece ids and back."""

    def __init__(self, model: bytes, name: str) -> None:
        """model: a serialised SentencePiece model; name: what errors call it."""
        self._processor = SentencePieceProcessor()
        try:
            self._processor.load_from_serialized_proto(model)
        except RuntimeError as error:
            raise TokenizerError(
                f"{name} is not a SentencePiece model ({len(model):,} bytes: {error}). Give a "
                ".model file that spm_train or `transloom prepare` wrote."
            ) from error
        self.model = model
        special = {
            "pad": self._processor.pad_id(),
            "unk": self._processor.unk_id(),
            "bos": self._processor.bos_id(),
            "eos": self._processor.eos_id(),
        }
        missing = [piece for piece, number in special.items() if number < 0]
        if missing:
            raise TokenizerError(
                f"{name} has {self._processor.get_piece_size()} pieces with the special ids "
                f"{special}, and {', '.join(missing)} is missing. Translation needs all four: "
                "train the model with --pad_id=0 --unk_id=1 --bos_id=2 --eos_id=3, or leave out "
                "tokenizer.model to have one trained."
            )
        self.special_ids = SpecialIds(**special)

    @classmethod
    def load(cls, path: Path) -> Self:
        try:
            return cls(path.read_bytes(), str(path))
        except OSError as error:
            raise TokenizerError(
                f"The SentencePiece model {path} cannot be read ({error.strerror}). Correct "
                "tokenizer.model, or leave it out to have a model trained."
            ) from error

    @cached_property
    def vocabulary_size(self) -> int:
        return int(self._processor.get_piece_size())

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

    def encode(self, sentences: list[str]) -> list[Int32Array]:
        """Piece ids of each sentence, without BOS and EOS."""
        return [np.array(ids, dtype=np.int32) for ids in self._processor.encode(sentences)]

    def encode_field(self, sentences: list[str]) -> FieldArrays:
        """All sentences as one flat field, each ending in EOS, as batches have them."""
        encoded = self._processor.encode(sentences, add_eos=True)
        lengths = np.fromiter(map(len, encoded), dtype=np.int32, count=len(encoded))
        ids = np.fromiter(chain.from_iterable(encoded), dtype=np.int32, count=int(lengths.sum()))
        return FieldArrays(ids, lengths)

    def decode(self, ids: list[list[int]]) -> list[str]:
        """Text of each sequence; special pieces but unk leave nothing behind."""
        return list(self._processor.decode(ids)) if ids else []

    def piece(self, number: int) -> str:
        return str(self._processor.id_to_piece(number))


def train_tokenizer(sentences: Iterable[str], config: TokenizerConfig, name: str) -> Tokenizer:
    """Trains a model on the sentences in their order. Raises TokenizerError when it cannot."""
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=config.type,
            vocab_size=config.vocabulary_size,
            character_coverage=config.character_coverage,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            num_threads=1,  # more threads add up floating-point counts in another order
            minloglevel=LOG_ERRORS_ONLY,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2] or str(error)
        raise TokenizerError(
            f"{name} cannot be trained with tokenizer.vocabulary_size={config.vocabulary_size}: "
            f"{reason} Change tokenizer.vocabulary_size accordingly, or give more text."
        ) from error
    return Tokenizer(model.getvalue(), name)


def load_existing(config: TokenizerConfig) -> Tokenizer:
    """The recipe's existing model, checked against its hash and vocabulary size."""
    assert config.model is not None
    tokenizer = Tokenizer.load(Path(config.model))
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


def load_tokenizers(dataset: Path, manifest: Manifest) -> dict[str, Tokenizer]:
    """The dataset's tokenizers by field, verified; a joint one is one object under both names."""
    by_file = {
        info.file: Tokenizer(
            read_verified(dataset, info.file, info.sha256), str(dataset / info.file)
        )
        for info in manifest.tokenizers.values()
    }
    return {field: by_file[info.file] for field, info in manifest.tokenizers.items()}
