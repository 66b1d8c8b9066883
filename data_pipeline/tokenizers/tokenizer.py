"""Pieces: SentencePiece models, trained or given, behind a small interface.

    sentences ──train──▶ model                       (or a model that the recipe names)
    sentences ──best or sampled segmentation──▶ [tag] pieces EOS, flat ──decode──▶ sentences

Trained models have pad 0, unk 1, bos 2 and eos 3, and depend on nothing but the text, its order
and the settings. SentencePiece normalises by NFKC, so decoded text is normalised too.

A tag is a control symbol: it stands before a sentence's pieces because we put it there, never
because a text contains it, and decoding leaves it out.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

from data_pipeline.arrays import FieldArrays, Int32Array, UInt64Array
from data_pipeline.config import TokenizerConfig
from data_pipeline.dataset.manifest import Manifest, SpecialIds
from data_pipeline.errors import TokenizerError
from data_pipeline.storage.store import DatasetStore
from data_pipeline.tokenizers.random_segmentation import BpeDropout, Pieces, UnigramSampling

LOG_ERRORS_ONLY = 2
LONGEST_SENTENCE_BYTES = 1024 * 1024  # a corpus has no longer ones, see corpora/cutting.py
SPECIAL_PIECES = frozenset({"<pad>", "<unk>", "<s>", "</s>"})  # of the models trained here


class Tokenizer:
    """Turns sentences into piece ids and back."""

    def __init__(self, model: bytes, name: str) -> None:
        """Loads a model.

        Args:
            model: a serialised SentencePiece model.
            name: the model's name in errors.
        """
        # By default SentencePiece starts a thread for every CPU of the machine, however few CPUs a
        # process was given.
        self._processor = SentencePieceProcessor(num_threads=1)
        try:
            self._processor.load_from_serialized_proto(model)
        except RuntimeError as error:
            raise TokenizerError(
                f"{name} is not a SentencePiece model ({len(model):,} bytes: {error}). Give a "
                ".model file that spm_train or `transloom prepare` wrote."
            ) from error
        self.model = model
        self.name = name
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

    def encode_field(self, sentences: list[str], tag: str | None = None) -> FieldArrays:
        """All sentences as one flat field, each ending in EOS, as batches have them.

        Args:
            tag: the piece put before each sentence.

        Raises:
            TokenizerError: the model lacks the tag.
        """
        return self._flat(self._processor.encode(sentences, add_eos=True), tag)

    def sample_field(
        self, sentences: list[str], seeds: UInt64Array, alpha: float, tag: str | None = None
    ) -> FieldArrays:
        """Like `encode_field`, but segments sentence i at random, as `seeds[i]` determines.

        Args:
            seeds: [sentences].
            alpha: BPE: the probability of leaving out each merge; 0 gives the best segmentation, 1
                single characters. Unigram: the exponent of the segmentations' probabilities; 1
                draws by the model's probabilities, less comes closer to drawing evenly, 0 does.

        Raises:
            TokenizerError: the model cannot be sampled from, or lacks the tag.
        """
        sample = self._segmentations.sample
        texts = self._processor.normalize(sentences)
        sampled = [
            [*sample(text, alpha, seed), self.eos_id]
            for text, seed in zip(texts, seeds.tolist(), strict=True)
        ]
        return self._flat(sampled, tag)

    @cached_property
    def _segmentations(self) -> BpeDropout | UnigramSampling:
        model = ModelProto()
        model.ParseFromString(self.model)
        kinds = ModelProto.SentencePiece
        model_type = model.trainer_spec.model_type
        fixed = [p.piece for p in model.pieces if p.type in (kinds.USER_DEFINED, kinds.UNUSED)]
        if fixed or model_type not in (TrainerSpec.BPE, TrainerSpec.UNIGRAM):
            raise TokenizerError(
                f"tokenizer.sampling needs a BPE or unigram model without user-defined or unused "
                f"pieces, and {self.name} is of type {TrainerSpec.ModelType.Name(model_type)} with "
                f"{len(fixed)} such pieces{''.join(f' {piece}' for piece in fixed[:3])}. Set "
                "tokenizer.sampling.alpha to 0, or leave out tokenizer.model to have one trained."
            )
        normal = [(n, p) for n, p in enumerate(model.pieces) if p.type == kinds.NORMAL]
        pieces = Pieces(
            normal={piece.piece: (number,) for number, piece in normal},
            scores={piece.piece: piece.score for _, piece in normal},
            unknown=self.unk_id,
            bytes=tuple(n for n, piece in enumerate(model.pieces) if piece.type == kinds.BYTE),
        )
        return (BpeDropout if model_type == TrainerSpec.BPE else UnigramSampling)(pieces)

    def _flat(self, encoded: list[list[int]], tag: str | None) -> FieldArrays:
        # Lists of numbers on purpose: SentencePiece's numpy buffers take longer (measured).
        lengths = np.fromiter(map(len, encoded), dtype=np.int32, count=len(encoded))
        ids = np.fromiter(chain.from_iterable(encoded), dtype=np.int32, count=int(lengths.sum()))
        if tag is None:
            return FieldArrays(ids, lengths)
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        return FieldArrays(np.insert(ids, starts, self.tag_id(tag)), lengths + np.int32(1))

    def tag_id(self, tag: str) -> int:
        """The id of a tag.

        Raises:
            TokenizerError: the tag is no control symbol of its own in the model.
        """
        number = int(self._processor.piece_to_id(tag))  # unk when there is no such piece
        if number in self.special_ids.model_dump().values():
            found = f"its id is {number}, that of the special piece {self.piece(number)}"
        elif not self._processor.is_control(number):
            found = f"its id is {number}, and sentences that contain its text would get it too"
        else:
            return number
        raise TokenizerError(
            f"The tag {tag} must be a control symbol of {self.name}, but {found}. Leave out "
            f"tokenizer.model to have one trained, train it with --control_symbols={tag}, or "
            "correct the tag."
        )

    def decode(self, ids: list[list[int]]) -> list[str]:
        """Text of each sequence; special pieces, except unk, leave nothing behind."""
        return list(self._processor.decode(ids)) if ids else []

    def piece(self, number: int) -> str:
        return str(self._processor.id_to_piece(number))


def train_tokenizer(
    sentences: Iterable[str], config: TokenizerConfig, name: str, tags: Sequence[str] = ()
) -> Tokenizer:
    """Trains a model on the sentences in their order, with each tag as a control symbol.

    The tags count towards the vocabulary size.

    Raises:
        TokenizerError: the model cannot be trained.
    """
    if reserved := SPECIAL_PIECES.intersection(tags):
        raise TokenizerError(
            f"The tag {', '.join(sorted(reserved))} cannot be a piece of {name}, which has "
            f"{', '.join(sorted(SPECIAL_PIECES))} already. Give the tag another name, such as "
            "<2de>."
        )
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
            control_symbols=list(dict.fromkeys(tags)),
            max_sentence_length=LONGEST_SENTENCE_BYTES,  # its default leaves out 4 kB and more
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
    tokenizer = Tokenizer.load(Path(config.model).expanduser())
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


def load_tokenizers(store: DatasetStore, manifest: Manifest) -> dict[str, Tokenizer]:
    """The dataset's tokenizers by field, verified; a joint one is one object under both names."""
    files = {info.file: info.sha256 for info in manifest.tokenizers.values()}
    by_file = {
        file: Tokenizer(store.read(file, sha256), f"{file} of {store.location}")
        for file, sha256 in files.items()
    }
    return {field: by_file[info.file] for field, info in manifest.tokenizers.items()}
