"""Export of a run's tokenizers to the files of transformers' MarianTokenizer.

    source.spm, target.spm      SentencePiece models, unchanged
    vocab.json                  piece → id; also target_vocab.json if the vocabularies differ
    tokenizer_config.json       special pieces, languages, and options for reading text

The files follow transformers 5.23.0. MarianTokenizer then produces the same ids as transloom:

  - With `split_special_tokens`, `</s>` or `<pad>` in a text is plain text, as in transloom.
  - MarianTokenizer recognises a tag only as `>>…<<` at the beginning of a text. So vocab.json lists
    the tag <2de> as >><2de><<, and the tag >>de<< unchanged. If a text begins with `>>…<<` that is
    not a tag, this beginning is lost.
  - MarianTokenizer has a punctuation normaliser, but nothing calls it.

Decoding differs: `skip_special_tokens` drops unknown pieces, but transloom writes " ⁇ " for them.
"""

from collections.abc import Mapping, Sequence

from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.tokenizers.marian import MarianTokenizer
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer
from run_store.errors import RunError
from transloom.inference.export.fast_tokenizer import json_file

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
        tokenizers: the tokenizer of each field, by the field's name.
        tags: tags of the run's corpora.
        languages: language codes by field, such as "en".
        max_length: maximum tokens of a source, EOS included.

    Raises:
        RunError: MarianTokenizer does not support the kind of a tokenizer.
    """
    source, target = tokenizers[SOURCE], tokenizers[TARGET]
    models = {SOURCE: _sentence_piece_model(source), TARGET: _sentence_piece_model(target)}
    separate = source.model != target.model
    ids = {name: getattr(target, f"{name}_id") for name in SPECIAL}
    if ids["bos"] == ids["pad"]:
        del ids["bos"]  # the tokenizer has no BOS
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
        "vocab.json": json_file(vocabulary(source, tags)),
        "tokenizer_config.json": json_file(config),
        "special_tokens_map.json": json_file(special),
    }
    if separate:
        files["target_vocab.json"] = json_file(vocabulary(target, ()))
    return files


def vocabulary(tokenizer: Tokenizer, tags: Sequence[str]) -> dict[str, int]:
    """Return the id of each piece, where tags have the names that MarianTokenizer recognises."""
    renamed = {tokenizer.tag_id(tag): called(tag) for tag in tags}
    pieces = (tokenizer.piece(number) for number in range(tokenizer.vocabulary_size))
    return {renamed.get(number, piece): number for number, piece in enumerate(pieces)}


def called(tag: str) -> str:
    """Return a tag in the form that MarianTokenizer recognises at the beginning of a text."""
    return tag if tag.startswith(">>") and tag.endswith("<<") else f">>{tag}<<"


def _sentence_piece_model(tokenizer: Tokenizer) -> bytes:
    """Return the SentencePiece model with which MarianTokenizer segments like `tokenizer`."""
    if isinstance(tokenizer, MarianTokenizer):
        return tokenizer.sentence_piece_model
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise RunError(
            f"{tokenizer.name} is of the kind {tokenizer.kind}, but {TOKENIZER_CLASS} reads "
            "only SentencePiece models. Export a run with SentencePiece tokenizers."
        )
    if tokenizer.is_verbatim:
        raise RunError(
            f"{tokenizer.name} was trained with tokenizer.verbatim, which escapes line ends and "
            f"some characters before segmentation, but {TOKENIZER_CLASS} does not. Export a run "
            "with tokenizer.verbatim=false."
        )
    return tokenizer.model
