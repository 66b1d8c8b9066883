"""SentencePiece models, trained or given.

    texts ──train──▶ model                           (or a model that the recipe names)
    texts ──best or sampled segmentation──▶ [tag] pieces EOS, flat ──decode──▶ texts

Trained models have pad 0, unk 1, bos 2 and eos 3, and depend only on the text, its order and the
settings. A given model may lack pad, bos or eos; with spm_train's defaults, it has no pad. Each
missing piece gets an id after the model's own pieces. By default SentencePiece normalises text by
NFKC and joins consecutive spaces, so decoded text is normalised, too.

A verbatim model decodes ids to exactly the encoded text, because it has no normalisation.
SentencePiece writes a space as "▁"; its training ignores line ends, and sentences that contain "▅".
Text for a verbatim model is therefore first transformed by `escape`, also for training. The text is
encoded line by line, because whole documents of megabytes need more time and memory. With BPE, 8 MB
take 19 s and 370 MB of memory as one text, and 5 s and 165 MB line by line. In either kind of
model, a character is lost if it has no piece and the model has no byte pieces for it.
"""

import io
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain, islice
from typing import Any, ClassVar, Self

import numpy as np
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

from data_pipeline.arrays import FieldArrays, Int32Array, UInt64Array, flattened
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.dataset.manifest_header import SpecialIds
from data_pipeline.errors import TokenizerError
from data_pipeline.tokenizers.random_segmentation import (
    BpeDropout,
    Pieces,
    RandomSegmentation,
    UnigramSampling,
)
from data_pipeline.tokenizers.tokenizer import Tokenizer

LOG_ERRORS_ONLY = 2
REMEDY = "Give a .model file that spm_train or `transloom prepare` wrote."
LONGEST_SENTENCE_BYTES = 1024 * 1024  # maximum line of a corpus, see corpora/lines.py
SPECIAL_PIECES = frozenset({"<pad>", "<unk>", "<s>", "</s>"})  # of the models trained here
# Mark of verbatim models. It is stored in a field that SentencePiece preserves and ignores.
VERBATIM = "x-verbatim"

# Replacements of all characters that SentencePiece interprets specially (as measured with release
# 0.2.3). "␊" may be part of a piece, as in ".␊".
ESCAPE = "␛"
ESCAPES = {"\n": "␊", "␊": "␛n", "▁": "␛s", "▅": "␛u", "\0": "␛0", "\x1f": "␛b", ESCAPE: "␛e"}
_ESCAPE_TABLE = str.maketrans(ESCAPES)
_MEANT = {written: character for character, written in ESCAPES.items()}
_WRITTEN = re.compile("|".join(_MEANT))


def escape(text: str) -> str:
    """Replace characters that SentencePiece interprets specially."""
    return text.translate(_ESCAPE_TABLE)


def unescape(text: str) -> str:
    """Reverse `escape`; leave sequences that `escape` never writes unchanged."""
    return _WRITTEN.sub(lambda match: _MEANT[match[0]], text)


class SentencePieceTokenizer(Tokenizer):
    """Tokenizer of a SentencePiece model.

    Attributes:
        added: special pieces that `model` lacks, with the ids after its own pieces.
    """

    kind: ClassVar[str | None] = None

    def __init__(self, model: bytes, name: str) -> None:
        """Load a model.

        Args:
            model: a serialised SentencePiece model.
            name: the model's name in errors.

        Raises:
            TokenizerError: the bytes are not a SentencePiece model, or a special piece can be text.
        """
        self.model = model
        self.name = name
        self.added: tuple[str, ...] = ()
        self._processor = load_processor(model, name)
        missing = [special for special, number in self._special().items() if number < 0]
        proto = self.proto()
        own = {piece.piece for piece in proto.pieces}
        named = [getattr(proto.trainer_spec, f"{special}_piece") for special in missing]
        self.added = tuple(piece for piece in named if piece not in own)
        if self.added:
            self._processor = load_processor(self.proto().SerializeToString(), name)
        special = self._special()
        if unusable := [special for special, number in special.items() if number < 0]:
            raise TokenizerError(
                f"{name} has {self._processor.get_piece_size()} pieces with the special ids "
                f"{special}, but text may contain the piece of {', '.join(unusable)}. Train the "
                "model without this user-defined symbol, or remove tokenizer.model to train a new "
                "model."
            )
        self.special_ids = SpecialIds(**special)
        self.is_verbatim = VERBATIM in proto.trainer_spec.accept_language

    def _special(self) -> dict[str, int]:
        """Return the special ids; a special piece that is missing has the id -1."""
        names = ("pad", "unk", "bos", "eos")
        return {name: getattr(self._processor, f"{name}_id")() for name in names}

    def proto(self) -> ModelProto:
        """Return the parsed model, with the special pieces that it lacks."""
        proto = ModelProto.FromString(self.model)
        for piece in self.added:
            proto.pieces.add(piece=piece, type=ModelProto.SentencePiece.CONTROL)
        return proto

    @classmethod
    def train(
        cls, texts: Iterable[str], config: TokenizerConfig, name: str, tags: Sequence[str] = ()
    ) -> Self:
        """See `Tokenizer.train`."""
        if reserved := SPECIAL_PIECES.intersection(tags):
            raise TokenizerError(
                f"The tag {', '.join(sorted(reserved))} cannot be a piece of {name}, which already "
                f"has {', '.join(sorted(SPECIAL_PIECES))}. Give the tag another name, such as "
                "<2de>."
            )
        model = _trained(texts, config, name, tags)
        return cls(_marked(model) if config.verbatim else model, name)

    @cached_property
    def vocabulary_size(self) -> int:
        return int(self._processor.get_piece_size())

    def encode(self, sentences: list[str]) -> list[Int32Array]:
        """Return the piece ids of each sentence, without BOS and EOS."""
        return [np.array(ids, dtype=np.int32) for ids in self._encoded(sentences)]

    def encode_field(self, sentences: list[str], tag: str | None = None) -> FieldArrays:
        """Encode sentences as one flat field, each ending in EOS.

        Args:
            tag: the piece put before each sentence, or None.

        Raises:
            TokenizerError: the model lacks the tag.
        """
        # `_encoded` returns lists, because SentencePiece's numpy output takes longer (measured).
        return self._tagged(flattened(self._encoded(sentences, add_eos=True)), tag)

    def sample_field(
        self, sentences: list[str], seeds: UInt64Array, alpha: float, tag: str | None = None
    ) -> FieldArrays:
        """Encode like `encode_field`, but segment sentence i at random as determined by `seeds[i]`.

        Args:
            seeds: [sentences].
            alpha: for BPE, the probability of dropping each merge: 0 gives the best segmentation, 1
                single characters. For unigram models, the exponent of the probabilities of
                segmentations: 1 draws by the model's probabilities, 0 uniformly.

        Raises:
            TokenizerError: the model does not support sampling, or lacks the tag.
        """
        segmentations = self._segmentations
        if self.is_verbatim:
            sentences = [escape(text) for text in sentences]
        texts = self._processor.normalize(sentences)
        return self._tagged(segmentations.sample_all(texts, alpha, seeds, self.eos_id), tag)

    @cached_property
    def _segmentations(self) -> RandomSegmentation:
        model = self.proto()
        kinds = ModelProto.SentencePiece
        model_type = model.trainer_spec.model_type
        fixed = [p.piece for p in model.pieces if p.type in (kinds.USER_DEFINED, kinds.UNUSED)]
        if fixed or model_type not in (TrainerSpec.BPE, TrainerSpec.UNIGRAM):
            raise TokenizerError(
                f"tokenizer.sampling needs a BPE or unigram model without user-defined or unused "
                f"pieces, but {self.name} is of type {TrainerSpec.ModelType.Name(model_type)} with "
                f"{len(fixed)} such pieces{''.join(f' {piece}' for piece in fixed[:3])}. Set "
                "tokenizer.sampling.alpha to 0, or remove tokenizer.model to train a new model."
            )
        normal = [(n, p) for n, p in enumerate(model.pieces) if p.type == kinds.NORMAL]
        pieces = Pieces(
            normal={piece.piece: (number,) for number, piece in normal},
            scores={piece.piece: piece.score for _, piece in normal},
            unknown=self.unk_id,
            bytes=tuple(n for n, piece in enumerate(model.pieces) if piece.type == kinds.BYTE),
        )
        return (BpeDropout if model_type == TrainerSpec.BPE else UnigramSampling)(pieces)

    def _encoded(self, texts: list[str], *, add_eos: bool = False) -> list[list[int]]:
        if not self.is_verbatim:
            return list(self._processor.encode(texts, add_eos=add_eos))
        # Encode line by line, as in training, because no piece crosses a line end.
        lines = [_lines(text) for text in texts]
        encoded = iter(self._processor.encode([escape(line) for part in lines for line in part]))
        end = [self.eos_id] if add_eos else []
        return [[*chain.from_iterable(islice(encoded, len(part))), *end] for part in lines]

    def _tagged(self, field: FieldArrays, tag: str | None) -> FieldArrays:
        return field if tag is None else field.with_first(self.tag_id(tag))

    def tag_id(self, tag: str) -> int:
        """Return the id of a tag.

        Raises:
            TokenizerError: the tag is not a control symbol of the model, or is a special piece.
        """
        number = int(self._processor.piece_to_id(tag))  # the id of unk if there is no such piece
        if number in self.special_ids.model_dump().values():
            found = f"its id is {number}, the id of the special piece {self.piece(number)}"
        elif not self._processor.is_control(number):
            found = f"its id is {number}, which sentences that contain its text would also get"
        else:
            return number
        raise TokenizerError(
            f"The tag {tag} must be a control symbol of {self.name}, but {found}. Remove "
            f"tokenizer.model to train a new model, train the model with "
            f"--control_symbols={tag}, or correct the tag."
        )

    def decode(self, ids: list[list[int]]) -> list[str]:
        """Return the text of each sequence; special pieces, except unk, are omitted."""
        texts = list(self._processor.decode(ids)) if ids else []
        return [unescape(text) for text in texts] if self.is_verbatim else texts

    def piece(self, number: int) -> str:
        return str(self._processor.id_to_piece(number))

    def pieces(self, sentence: str) -> list[str]:
        """See `Tokenizer.pieces`."""
        lines = [escape(line) for line in _lines(sentence)] if self.is_verbatim else [sentence]
        return list(chain.from_iterable(self._processor.encode(lines, out_type=str)))


def _lines(text: str) -> list[str]:
    """Return the lines of a text, each with its line end."""
    *lines, last = text.split("\n")
    return [line + "\n" for line in lines] + ([last] if last else [])


def vocabulary_range(texts: Iterable[str], config: TokenizerConfig) -> tuple[int, int]:
    """Return the smallest and largest vocabulary size that a model of the texts can have.

    The largest is at most the vocabulary size of `config`.

    Raises:
        TokenizerError: no model can be trained, for example because the texts have more characters
            than the vocabulary size of `config`.
    """
    model = ModelProto.FromString(_trained(texts, config, "tokenizer.model", (), exact_size=False))
    merged = sum(
        piece.type == ModelProto.SentencePiece.NORMAL and len(piece.piece) > 1
        for piece in model.pieces
    )
    return len(model.pieces) - merged, len(model.pieces)


def _trained(
    texts: Iterable[str],
    config: TokenizerConfig,
    name: str,
    tags: Sequence[str],
    *,
    exact_size: bool = True,
) -> bytes:
    """Train a model.

    Args:
        exact_size: False for a smaller vocabulary if the texts have too few pieces.
    """
    model = io.BytesIO()
    options = _options(config) if exact_size else _options(config) | {"hard_vocab_limit": False}
    try:
        SentencePieceTrainer.train(
            sentence_iterator=map(escape, texts) if config.verbatim else iter(texts),
            model_writer=model,
            model_type=config.type,
            vocab_size=config.vocabulary_size,
            character_coverage=config.character_coverage,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            control_symbols=list(dict.fromkeys(tags)),
            max_sentence_length=LONGEST_SENTENCE_BYTES,  # by default, texts over 4 kB are skipped
            num_threads=1,  # with several threads, the order of floating-point sums would differ
            minloglevel=LOG_ERRORS_ONLY,
            **options,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2] or str(error)
        raise TokenizerError(
            f"{name} cannot be trained with tokenizer.vocabulary_size="
            f"{config.vocabulary_size}: {reason} Change tokenizer.vocabulary_size accordingly, "
            "or give more text."
        ) from error
    return model.getvalue()


def _options(config: TokenizerConfig) -> dict[str, Any]:
    """Return the training options that differ from SentencePiece's defaults."""
    options: dict[str, Any] = {}
    if config.byte_fallback:
        options["byte_fallback"] = True
    if config.type == "char":
        options["hard_vocab_limit"] = (
            False  # a text may have fewer distinct characters than the vocabulary size
        )
    if config.verbatim:
        options |= {
            "normalization_rule_name": "identity",
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
        }
    return options


def _marked(model: bytes) -> bytes:
    proto = ModelProto.FromString(model)
    proto.trainer_spec.accept_language.append(VERBATIM)
    return bytes(proto.SerializeToString(deterministic=True))


def load_processor(model: bytes, name: str, remedy: str = REMEDY) -> SentencePieceProcessor:
    """Load a SentencePiece model.

    Raises:
        TokenizerError: it is not one; the message ends with the remedy.
    """
    # By default SentencePiece starts a thread for every CPU of the machine, regardless of the
    # number of CPUs assigned to the process.
    processor = SentencePieceProcessor(num_threads=1)
    try:
        processor.load_from_serialized_proto(model)
    except RuntimeError as error:
        raise TokenizerError(
            f"{name} is not a SentencePiece model ({len(model):,} bytes: {error}). {remedy}"
        ) from error
    return processor
