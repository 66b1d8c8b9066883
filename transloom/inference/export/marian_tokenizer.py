"""The tokenizers of a run as the files that transformers' MarianTokenizer reads.

    source.spm, target.spm      SentencePiece models, unchanged
    vocab.json                  piece → id; target_vocab.json beside it where sides have their own
    tokenizer_config.json       special pieces, languages, and how text is read

Read in transformers 5.23.0. Its ids are ours, for these reasons:

- `split_special_tokens`: a text that spells `</s>` or `<pad>` is text, as it is here.
- A tag is read where a text begins with `>>…<<`. So the piece <2de> is called >><2de><< in
  vocab.json, and >>de<< as it is. A text that begins so and holds no tag loses that beginning.
- MarianTokenizer has a normaliser of punctuation, which nothing calls.

In decoding with `skip_special_tokens` unknown pieces leave nothing behind; ours leave " ⁇ ".
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.tokenizers.marian import MarianTokenizer
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer
from trainer.errors import TrainerError

TOKENIZER_CLASS = "MarianTokenizer"
SPECIAL = ("unk", "bos", "eos", "pad")


def tokenizer_files(
    tokenizers: Mapping[str, Tokenizer],
    *,
    tags: Sequence[str],
    languages: Mapping[str, str],
    max_length: int,
) -> dict[str, bytes]:
    """The content of each file by its name.

    Args:
        tokenizers: by field.
        tags: those of the run's corpora.
        languages: by field, such as en.
        max_length: tokens of a source at most, EOS included.

    Raises:
        TrainerError: a tokenizer is of a kind that MarianTokenizer does not have.
    """
    source, target = tokenizers[SOURCE], tokenizers[TARGET]
    models = {SOURCE: _sentence_piece_model(source), TARGET: _sentence_piece_model(target)}
    separate = source.model != target.model
    ids = {name: getattr(target, f"{name}_id") for name in SPECIAL}
    if ids["bos"] == ids["pad"]:
        del ids["bos"]  # there is none
    special = {f"{name}_token": target.piece(number) for name, number in ids.items()}
    config = {
        "tokenizer_class": TOKENIZER_CLASS,
        "source_lang": languages[SOURCE],
        "target_lang": languages[TARGET],
        **special,
        "model_max_length": max_length,
        "separate_vocabs": separate,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }
    files = {
        "source.spm": models[SOURCE],
        "target.spm": models[TARGET],
        "vocab.json": _json(vocabulary(source, tags)),
        "tokenizer_config.json": _json(config),
        "special_tokens_map.json": _json(special),
    }
    if separate:
        files["target_vocab.json"] = _json(vocabulary(target, ()))
    return files


def vocabulary(tokenizer: Tokenizer, tags: Sequence[str]) -> dict[str, int]:
    """The id of each piece, with tags by the names under which a text has them."""
    renamed = {tokenizer.tag_id(tag): called(tag) for tag in tags}
    pieces = (tokenizer.piece(number) for number in range(tokenizer.vocabulary_size))
    return {renamed.get(number, piece): number for number, piece in enumerate(pieces)}


def called(tag: str) -> str:
    """What stands before a text in the place of a tag."""
    return tag if tag.startswith(">>") and tag.endswith("<<") else f">>{tag}<<"


def _sentence_piece_model(tokenizer: Tokenizer) -> bytes:
    """The model with which MarianTokenizer segments as the tokenizer does."""
    if isinstance(tokenizer, MarianTokenizer):
        return tokenizer.sentence_piece_model
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise TrainerError(
            f"{tokenizer.name} is of the kind {tokenizer.kind}, and {TOKENIZER_CLASS} reads "
            "SentencePiece models. Export a run with such tokenizers."
        )
    if tokenizer.is_verbatim:
        raise TrainerError(
            f"{tokenizer.name} was trained with tokenizer.verbatim, which writes line ends and "
            f"some characters as others before it segments, and {TOKENIZER_CLASS} does not. Export "
            "a run with tokenizer.verbatim=false."
        )
    return tokenizer.model


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
