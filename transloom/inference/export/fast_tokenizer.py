"""Export of a SentencePiece tokenizer to tokenizer.json, the format of the library `tokenizers`.

    text ─▶ the model's normalisation ─▶ words, each preceded by "▁" ─▶ pieces ─▶ BOS … EOS

The file is written for tokenizers 0.23, and is read by transformers' `PreTrainedTokenizerFast`. It
produces the ids of SentencePiece 0.2, except for texts that contain the name of a special piece:
`<mask>` in a text becomes the mask, as intended, and `</s>` becomes EOS. Four points need care:

  - Normalisation uses SentencePiece's own table. Like SentencePiece, it collapses consecutive
    spaces and removes those at the end of a text. No space is added to text that follows a mask.
  - A verbatim model has no normalisation. Its text is escaped and split into lines, as in training.
  - SentencePiece's BPE always merges the two adjacent pieces whose result has the best score.
    `tokenizers` instead merges in the order of a list of pairs. The exported list has every pair
    that forms a piece, ordered by the score of that piece.
  - In a unigram model, special pieces and bytes have the score 0, so a segmentation could contain
    them. The export lowers their score so much that a segmentation contains them only for unknown
    characters. A text that contains the name of a byte, such as `<0x41>`, becomes that byte if the
    model has no piece "<".
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

from data_pipeline.tokenizers.sentence_piece import ESCAPES, SentencePieceTokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer
from run_store.errors import RunError

SPACE = "▁"
NEVER = -1e9  # a score too low for any segmentation
_KINDS = ModelProto.SentencePiece


def tokenizer_files(
    tokenizer: Tokenizer, mask: str | None, max_length: int, *, second_begins: bool = False
) -> dict[str, bytes]:
    """Return the contents of tokenizer.json and tokenizer_config.json, by name.

    Args:
        mask: the piece that replaces hidden pieces, or None if the tokenizer has no such piece.
        max_length: maximum tokens of a text, BOS and EOS included.
        second_begins: True if the second text of a pair begins with BOS, too.

    Raises:
        RunError: tokenizer.json cannot represent the tokenizer.
    """
    model, verbatim = _model_of(tokenizer)
    joins = any(p.piece.startswith(SPACE) and len(p.piece) > 1 for p in model.pieces)
    special = {name: tokenizer.piece(n) for name, n in tokenizer.special_ids.model_dump().items()}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **{f"{name}_token": piece for name, piece in special.items()},
        "cls_token": special["bos"],
        "sep_token": special["eos"],
        **({} if mask is None else {"mask_token": mask}),
    }
    masks = [] if mask is None else [tokenizer.tag_id(mask)]
    added = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, *masks]
    file = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(tokenizer.piece(number), number, with_space=joins and number in masks)
            for number in sorted(added)
        ],
        "normalizer": _escaping() if verbatim else _normalizer(model),
        "pre_tokenizer": _lines_and_words() if verbatim else _metaspace("first"),
        "post_processor": _between(special["bos"], special["eos"], tokenizer, second_begins),
        "decoder": _unescaping() if verbatim else _decoder(model),
        "model": _segmentation(model, tokenizer.unk_id),
    }
    return {"tokenizer.json": json_file(file), "tokenizer_config.json": json_file(config)}


def _model_of(tokenizer: Tokenizer) -> tuple[ModelProto, bool]:
    """Return the SentencePiece model, and True if it was trained with tokenizer.verbatim.

    Raises:
        RunError: the library `tokenizers` cannot reproduce the model's segmentation.
    """
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise RunError(
            f"{tokenizer.name} is of the kind {tokenizer.kind}, but tokenizer.json is written "
            "only for SentencePiece models. Export a run with a SentencePiece tokenizer."
        )
    model = tokenizer.proto()
    trainer, rules = model.trainer_spec, model.normalizer_spec
    verbatim = tokenizer.is_verbatim
    fits = {
        "words as pieces": trainer.model_type != TrainerSpec.WORD,
        "pieces across spaces": all(SPACE not in piece.piece[1:] for piece in model.pieces),
        "spaces after words": not trainer.treat_whitespace_as_suffix,
        "no space before a text": verbatim or rules.add_dummy_prefix,
        "unchanged spaces": verbatim or rules.remove_extra_whitespaces,
        "spaces not replaced by ▁": rules.escape_whitespaces,
        "user-defined pieces": not any(p.type == _KINDS.USER_DEFINED for p in model.pieces),
    }
    if lacks := [what for what, fit in fits.items() if not fit]:
        raise RunError(
            f"{tokenizer.name} has {', '.join(lacks)}, which the export to tokenizer.json does not "
            "support. Export a run whose tokenizer was trained with transloom's defaults."
        )
    return model, verbatim


def _added(piece: str, number: int, *, with_space: bool) -> dict[str, Any]:
    """Return the entry of a special piece that is recognised wherever a text contains its name.

    Args:
        with_space: True if the spaces before the piece belong to it.
    """
    plain = dict.fromkeys(("single_word", "rstrip", "normalized"), False)
    return {"id": number, "content": piece, "lstrip": with_space, **plain, "special": True}


def _normalizer(model: ModelProto) -> dict[str, Any]:
    table = model.normalizer_spec.precompiled_charsmap
    own = {
        "type": "Precompiled",
        "precompiled_charsmap": base64.b64encode(table).decode("ascii"),
    }
    spaces = [
        {"type": "Replace", "pattern": {"Regex": found}, "content": content}
        for found, content in ((" {2,}", " "), (" $", ""))
    ]
    return {"type": "Sequence", "normalizers": [*([own] if table else []), *spaces]}


def _replaced(found: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": found}, "content": content}


def _escaping() -> dict[str, Any]:
    """Return the replacements of `sentence_piece.escape`, with the escape character first."""
    return {
        "type": "Sequence",
        "normalizers": [_replaced(found, written) for found, written in reversed(ESCAPES.items())],
    }


def _unescaping() -> dict[str, Any]:
    """Return the replacements of `sentence_piece.unescape`, with the escape character last."""
    return _joined_pieces([_replaced(written, found) for found, written in ESCAPES.items()])


def _lines_and_words() -> dict[str, Any]:
    end = {"type": "Split", "pattern": {"String": ESCAPES["\n"]}, "invert": False}
    return {
        "type": "Sequence",
        "pretokenizers": [{**end, "behavior": "MergedWithPrevious"}, _metaspace("never")],
    }


def _metaspace(prepend: str) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": prepend, "split": True}


def _between(bos: str, eos: str, tokenizer: Tokenizer, second_begins: bool) -> dict[str, Any]:
    def token(piece: str, segment: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": piece, "type_id": segment}}

    def text(name: str, segment: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": segment}}

    single = [token(bos, 0), text("A", 0), token(eos, 0)]
    second = [token(bos, 1)] * second_begins + [text("B", 1), token(eos, 1)]
    ids = {bos: tokenizer.bos_id, eos: tokenizer.eos_id}
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *second],
        "special_tokens": {
            piece: {"id": piece, "ids": [number], "tokens": [piece]}
            for piece, number in ids.items()
        },
    }


def _decoder(model: ModelProto) -> dict[str, Any]:
    if not model.trainer_spec.byte_fallback:
        return _metaspace("first")
    return _joined_pieces([{"type": "Strip", "content": " ", "start": 1, "stop": 0}])


def _joined_pieces(then: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the decoder that joins pieces to a text, which other decoders then change."""
    pieces = [_replaced(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    return {"type": "Sequence", "decoders": [*pieces, *then]}


def _segmentation(model: ModelProto, unknown: int) -> dict[str, Any]:
    byte_fallback = model.trainer_spec.byte_fallback
    if model.trainer_spec.model_type == TrainerSpec.UNIGRAM:
        scored = [[p.piece, p.score if p.type == _KINDS.NORMAL else NEVER] for p in model.pieces]
        return {
            "type": "Unigram",
            "unk_id": unknown,
            "vocab": scored,
            "byte_fallback": byte_fallback,
        }
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": model.pieces[unknown].piece,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": byte_fallback,
        "ignore_merges": False,
        "vocab": {piece.piece: number for number, piece in enumerate(model.pieces)},
        "merges": _merges(model) if model.trainer_spec.model_type == TrainerSpec.BPE else [],
    }


def _merges(model: ModelProto) -> list[list[str]]:
    """Return all pairs of pieces that form a piece, ordered by that piece's score, best first."""
    normal = {p.piece: p.score for p in model.pieces if p.type == _KINDS.NORMAL}
    merges = []
    for piece in sorted(normal, key=lambda piece: -normal[piece]):
        halves = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        merges += [[left, right] for left, right in halves if left in normal and right in normal]
    return merges


def json_file(content: Mapping[str, Any]) -> bytes:
    """Return the content of a tokenizer's file."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
