"""Export of a run's tokenizers to the files of transformers' MarianTokenizer.

    source.spm, target.spm      SentencePiece models, unchanged
    vocab.json                  piece → id; also target_vocab.json if the sides have different ones
    tokenizer_config.json       special pieces, languages, and options for reading text

It follows transformers 5.23.0. The ids are ours, for these reasons:

- `split_special_tokens`: a text that spells `</s>` or `<pad>` is text, as in transloom.
- A tag is recognised if a text begins with `>>…<<`. So vocab.json has the piece <2de> as
  >><2de><<, and >>de<< unchanged. A text that begins so without a tag loses that beginning.
- MarianTokenizer has a normaliser of punctuation, which nothing calls.

Decoding with `skip_special_tokens` drops unknown pieces; ours writes " ⁇ ".
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
    """Return the content of each file by its name.

    Args:
        tokenizers: by field.
        tags: tags of the run's corpora.
        languages: by field, such as en.
        max_length: maximum tokens of a source, EOS included.

    Raises:
        TrainerError: MarianTokenizer does not support the kind of a tokenizer.
    """
    source, target = tokenizers[SOURCE], tokenizers[TARGET]
    models = {SOURCE: _sentence_piece_model(source), TARGET: _sentence_piece_model(target)}
    separate = source.model != target.model
    ids = {name: getattr(target, f"{name}_id") for name in SPECIAL}
    if ids["bos"] == ids["pad"]:
        del ids["bos"]  # there is no BOS
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
    """Return the id of each piece, with tags under their names in texts."""
    renamed = {tokenizer.tag_id(tag): called(tag) for tag in tags}
    pieces = (tokenizer.piece(number) for number in range(tokenizer.vocabulary_size))
    return {renamed.get(number, piece): number for number, piece in enumerate(pieces)}


def called(tag: str) -> str:
    """Return the prefix of a text that stands for a tag."""
    return tag if tag.startswith(">>") and tag.endswith("<<") else f">>{tag}<<"


def _sentence_piece_model(tokenizer: Tokenizer) -> bytes:
    """Return the model with which MarianTokenizer segments like the tokenizer."""
    if isinstance(tokenizer, MarianTokenizer):
        return tokenizer.sentence_piece_model
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise TrainerError(
            f"{tokenizer.name} is of the kind {tokenizer.kind}, but {TOKENIZER_CLASS} reads "
            "only SentencePiece models. Export a run with such tokenizers."
        )
    if tokenizer.is_verbatim:
        raise TrainerError(
            f"{tokenizer.name} was trained with tokenizer.verbatim, which escapes line ends and "
            f"some characters before segmentation, but {TOKENIZER_CLASS} does not. Export a run "
            "with tokenizer.verbatim=false."
        )
    return tokenizer.model


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
