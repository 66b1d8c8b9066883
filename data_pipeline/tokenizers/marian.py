"""Tokenizers of a Marian model in Hugging Face's layout, such as opus-mt.

    FOLDER/{source.spm, target.spm, vocab.json} ──packed──▶ one JSON file in the dataset
    text ──the SentencePiece model of its side──▶ pieces ──vocab.json──▶ ids, EOS

Each side has a SentencePiece model for segmentation. Both sides share the ids of vocab.json; a
piece that is missing there is <unk>. Consecutive characters that a side's model does not know form
one piece, which may be in vocab.json because of the other side. Marian's own models have no BOS: a
target begins with padding, so `bos` is the id of padding. In a folder that `transloom export`
wrote, config.json may name another first token, which is then BOS. `>>fra<<` is a tag of models
with many target languages.

Ids equal those of `transformers.MarianTokenizer` (5.23), except for texts that contain `</s>`,
`<unk>`, `<pad>`, or begin with a tag. MarianTokenizer interprets these strings, which are ordinary
text here. MarianTokenizer never calls its punctuation normaliser, so this module has none.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Base64Bytes

from data_pipeline.arrays import FieldArrays, Int32Array, flattened
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.dataset.manifest_header import Many, SpecialIds
from data_pipeline.errors import TokenizerError
from data_pipeline.storage.regular_files import read_regular
from data_pipeline.tokenizers.sentence_piece import load_processor
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.file_model import FileModel, JsonLimits, error_summary, parse_object
from foundation.wording import counted, join_items

EOS, UNKNOWN, PADDING = "</s>", "<unk>", "<pad>"
TAG_START, TAG_END = ">>", "<<"
SPACE = "▁"

SOURCE_FILE, TARGET_FILE, VOCABULARY_FILE = "source.spm", "target.spm", "vocab.json"
FILES = (SOURCE_FILE, TARGET_FILE, VOCABULARY_FILE)
SECOND_VOCABULARY_FILE = "target_vocab.json"
CONFIG_FILE = "config.json"  # settings of the network
Format = Literal["transloom-marian-tokenizer/1", "transloom-marian-tokenizer/2"]
FORMAT: Format = "transloom-marian-tokenizer/1"
FORMAT_WITH_BOS: Format = "transloom-marian-tokenizer/2"
# Sufficient for SentencePiece models and vocabularies of a million pieces.
FILE_LIMITS = JsonLimits(bytes=64_000_000, values=4_000_000, keys=1_000_000)


class PackedTokenizer(FileModel):
    """Tokenizers of both sides, as stored in a dataset.

    Attributes:
        source, target: SentencePiece models.
        pieces: the pieces of vocab.json, in the order of their ids.
        bos: the piece that begins a target, or None if padding does; new in version 2.
    """

    format: Format = FORMAT
    source: Base64Bytes
    target: Base64Bytes
    pieces: Many[str]
    bos: str | None = None


def pack(folder: Path) -> bytes:
    """Pack the tokenizers of a model's folder into one file; equal files give equal bytes.

    Raises:
        TokenizerError: a file is missing, or does not have the form of a Marian model's file.
    """
    if (folder / SECOND_VOCABULARY_FILE).exists():
        raise TokenizerError(
            f"{folder} has a {SECOND_VOCABULARY_FILE}, a separate vocabulary for the target, but "
            "only models with one vocabulary can be read. Use another model."
        )
    source, target, vocabulary = (_read(folder / name) for name in FILES)
    pieces = _pieces(vocabulary, folder / VOCABULARY_FILE)
    bos = _begin_of_targets(folder, pieces)
    packed = {
        "format": FORMAT if bos is None else FORMAT_WITH_BOS,
        "source": base64.b64encode(source).decode(),
        "target": base64.b64encode(target).decode(),
        "pieces": pieces,
    }
    if bos is not None:
        packed["bos"] = bos
    return json.dumps(packed, separators=(",", ":")).encode()


def unpack(packed: bytes, name: str) -> PackedTokenizer:
    """Return the content of a packed file.

    Args:
        name: the file's name in errors.

    Raises:
        TokenizerError: the bytes are not a packed file.
    """
    try:
        return PackedTokenizer.from_json(packed, FILE_LIMITS)
    except ValueError as error:
        problem = error_summary(error)
    raise TokenizerError(
        f"{name} is not a Marian tokenizer: {problem}. Name the folder of a Marian model, with "
        f"{join_items(FILES)}, or a tokenizer.model that `transloom prepare` wrote."
    )


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, FILE_LIMITS.bytes)
    except OSError as error:
        raise TokenizerError(
            f"{path} cannot be read ({error.strerror}). A Marian model's folder has "
            f"{join_items(FILES)}: download all of its files."
        ) from error


def _pieces(vocabulary: bytes, path: Path) -> list[str]:
    """Return the pieces of vocab.json in the order of their ids."""
    try:
        ids = parse_object(vocabulary, FILE_LIMITS)
    except ValueError as error:
        raise TokenizerError(f"{path} is not a vocabulary: {error}. Download it again.") from error
    pieces: list[str | None] = [None] * len(ids)
    for piece, number in ids.items():
        inside = type(number) is int and 0 <= number < len(pieces)
        if not inside or pieces[number] is not None:
            raise TokenizerError(
                f"{path} gives {piece[:80]!r} the id {number!r:.80}, expected a different number "
                f"below {len(pieces):,} for each piece. Download the file again."
            )
        pieces[number] = piece
    return [piece for piece in pieces if piece is not None]


def _begin_of_targets(folder: Path, pieces: Sequence[str]) -> str | None:
    """Return the piece that begins a target according to config.json, or None for padding.

    Errors in config.json are left to the reader of the network.
    """
    try:
        config = parse_object(read_regular(folder / CONFIG_FILE, FILE_LIMITS.bytes))
    except (OSError, ValueError):
        return None
    start = config.get("decoder_start_token_id")
    if not isinstance(start, int) or isinstance(start, bool) or not 0 <= start < len(pieces):
        return None
    return pieces[start] if pieces[start] not in (PADDING, EOS, UNKNOWN) else None


class MarianTokenizer(Tokenizer):
    """Tokenizer of one side of a Marian model.

    Attributes:
        sentence_piece_model: the SentencePiece model of this side.
    """

    kind: ClassVar[str | None] = "marian"

    def __init__(self, model: bytes, name: str, *, of_target: bool = False) -> None:
        """Load a packed file.

        Args:
            of_target: whether texts are in the target language.

        Raises:
            TokenizerError: the file is not a packed tokenizer, or lacks a special piece.
        """
        self.model = model
        self.name = name
        self._packed = unpack(model, name)
        self._ids: Mapping[str, int] = {piece: n for n, piece in enumerate(self._packed.pieces)}
        if len(self._ids) < len(self._packed.pieces):
            raise TokenizerError(f"{name} has the same piece twice. Prepare the dataset again.")
        bos = self._packed.bos or PADDING
        special = dict.fromkeys((EOS, UNKNOWN, PADDING, bos))
        missing = [piece for piece in special if piece not in self._ids]
        if missing:
            raise TokenizerError(
                f"{name} has {counted(len(self._ids), 'piece')}, but {join_items(missing)} is not "
                f"one of them. Use the {VOCABULARY_FILE} of a Marian model."
            )
        self.special_ids = SpecialIds(
            pad=self._ids[PADDING],
            unk=self._ids[UNKNOWN],
            bos=self._ids[bos],
            eos=self._ids[EOS],
        )
        self.sentence_piece_model = self._packed.target if of_target else self._packed.source
        file = f"{TARGET_FILE if of_target else SOURCE_FILE} of {name}"
        self._processor = load_processor(self.sentence_piece_model, file, "Download it again.")

    @classmethod
    def train(
        cls, texts: Iterable[str], config: TokenizerConfig, name: str, tags: Sequence[str] = ()
    ) -> Self:
        """Refuse to train; loading a recipe without a Marian model already raises an error."""
        raise TokenizerError(
            f"{name} is of type marian, which cannot be trained. Set tokenizer.model to the folder "
            "of a Marian model."
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the folder of a Marian model, or a packed file."""
        return cls(pack(path), str(path)) if path.is_dir() else super().load(path)

    def of_field(self, place: int) -> "MarianTokenizer":
        return MarianTokenizer(self.model, self.name, of_target=True) if place else self

    @property
    def vocabulary_size(self) -> int:
        return len(self._packed.pieces)

    @property
    def tags(self) -> list[str]:
        """Pieces that may be put before a text, such as >>fra<<."""
        return [piece for piece in self._packed.pieces if _is_tag(piece)]

    def encode(self, sentences: list[str]) -> list[Int32Array]:
        """Return the piece ids of each sentence, without EOS."""
        field = self._encoded(sentences)
        return np.split(field.ids, np.cumsum(field.lengths)[:-1]) if sentences else []

    def encode_field(self, sentences: list[str], tag: str | None = None) -> FieldArrays:
        """See `Tokenizer.encode_field`."""
        field = self._encoded(sentences)
        ids = np.insert(field.ids, np.cumsum(field.lengths), self.eos_id)
        field = FieldArrays(ids, field.lengths + np.int32(1))
        return field if tag is None else field.with_first(self.tag_id(tag))

    def tag_id(self, tag: str) -> int:
        """Return the id of a tag such as >>fra<<.

        Raises:
            TokenizerError: the vocabulary has no such tag.
        """
        if _is_tag(tag) and tag in self._ids:
            return self._ids[tag]
        known = self.tags
        raise TokenizerError(
            f"The tag {tag} is not one of the {counted(len(known), 'tag')} of {self.name}"
            f"{f', such as {join_items(known[:5])}' if known else ''}. Correct the tag."
        )

    def decode(self, ids: list[list[int]]) -> list[str]:
        """Return the text of each sequence; EOS, padding, BOS and tags are omitted."""
        left_out = self._never_text
        pieces = self._packed.pieces
        texts = [
            self._processor.decode_pieces([pieces[n] for n in part if n not in left_out])
            for part in ids
        ]
        # decode_pieces does not replace the space mark in pieces that only the other side's model
        # has.
        return [str(text).replace(SPACE, " ").strip() for text in texts]

    def piece(self, number: int) -> str:
        return self._packed.pieces[number]

    def _encoded(self, sentences: list[str]) -> FieldArrays:
        theirs = flattened(self._processor.encode(sentences))
        ids = self._vocabulary_ids[theirs.ids]
        # The id of an unknown piece does not determine its characters, so sentences with such
        # pieces are encoded again, as pieces.
        unknown = np.flatnonzero(theirs.ids == self._processor.unk_id())
        ends = np.cumsum(theirs.lengths)
        for row in np.unique(np.searchsorted(ends, unknown, side="right")).tolist():
            pieces = self._processor.encode(sentences[row], out_type=str)
            ids[ends[row] - len(pieces) : ends[row]] = [self._id_in_text(p) for p in pieces]
        return FieldArrays(ids, theirs.lengths)

    @cached_property
    def _vocabulary_ids(self) -> Int32Array:
        """[pieces], id in vocab.json of each piece of this side's SentencePiece model."""
        processor = self._processor
        pieces = (processor.id_to_piece(n) for n in range(processor.get_piece_size()))
        return np.array([self._id_in_text(piece) for piece in pieces], dtype=np.int32)

    def _id_in_text(self, piece: str) -> int:
        """Return the id of a piece of a text, never that of EOS, padding, BOS or a tag."""
        number = self._ids.get(piece, self.unk_id)
        return self.unk_id if number in self._never_text else number

    @cached_property
    def _never_text(self) -> frozenset[int]:
        special = self.eos_id, self.pad_id, self.bos_id
        return frozenset({*special, *(self._ids[tag] for tag in self.tags)})


def _is_tag(piece: str) -> bool:
    return piece.startswith(TAG_START) and piece.endswith(TAG_END)
