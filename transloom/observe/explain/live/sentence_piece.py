"""Convert a SentencePiece model to data for pieces.js, if pieces.js supports it.

Tables of normalisation rules (`precompiled_charsmap`) stay bytes, as SentencePiece compiled them.
"""

from typing import Any

from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

from data_pipeline.tokenizers.sentence_piece import VERBATIM, SentencePieceTokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer
from transloom.observe.explain.live.errors import NotLiveError

_TYPES = {TrainerSpec.BPE: "bpe", TrainerSpec.UNIGRAM: "unigram", TrainerSpec.CHAR: "char"}
_KINDS = ModelProto.SentencePiece
# Letters for the kinds of pieces.
_LETTERS = {
    _KINDS.NORMAL: "n",
    _KINDS.UNKNOWN: "u",
    _KINDS.CONTROL: "c",
    _KINDS.USER_DEFINED: "d",
    _KINDS.UNUSED: "x",
    _KINDS.BYTE: "b",
}


def packed_tokenizer(tokenizer: Tokenizer) -> tuple[dict[str, Any], bytes]:
    """Return the description of a tokenizer for pieces.js, and the table of its normaliser.

    Raises:
        NotLiveError: pieces.js does not support this tokenizer.
    """
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise NotLiveError(
            f"{tokenizer.name} is a tokenizer of the kind {tokenizer.kind}, which a page does not "
            "support"
        )
    model = tokenizer.proto()
    trainer, normaliser = model.trainer_spec, model.normalizer_spec
    if trainer.model_type not in _TYPES:
        kind = TrainerSpec.ModelType.Name(trainer.model_type).lower()
        raise NotLiveError(
            f"{tokenizer.name} is a SentencePiece model of the type {kind}, which a page does not "
            "support"
        )
    if model.denormalizer_spec.precompiled_charsmap:
        raise NotLiveError(
            f"{tokenizer.name} has rules that change its output, which a page does not support"
        )
    charsmap: bytes = normaliser.precompiled_charsmap
    described = {
        "type": _TYPES[trainer.model_type],
        "pieces": [piece.piece for piece in model.pieces],
        # Nine significant digits identify each float32.
        "scores": [float(f"{piece.score:.9g}") for piece in model.pieces],
        "types": "".join(_LETTERS[piece.type] for piece in model.pieces),
        "unk_id": tokenizer.unk_id,
        "unknown_text": trainer.unk_surface if trainer.HasField("unk_surface") else None,
        "verbatim": VERBATIM in trainer.accept_language,
        "normaliser": {
            "dummy_prefix": normaliser.add_dummy_prefix,
            "extra_spaces": not normaliser.remove_extra_whitespaces,
            "escape_spaces": normaliser.escape_whitespaces,
            "space_as_suffix": trainer.treat_whitespace_as_suffix,
        },
        "charsmap_bytes": len(charsmap),
    }
    return described, charsmap
