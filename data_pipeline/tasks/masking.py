"""Selection and replacement of masked tokens, as a function of random keys.

    ids ──keys of example and position──▶ tokens to predict ──▶ input with replacements

    stored   BOS  A  man  is  riding  a  bike  EOS
    seen     BOS  A  man  is  <mask>  a  bike  EOS
    labels    -1 -1   -1  -1  riding -1    -1   -1

Most of the tokens to predict are replaced by the mask, some by a random piece, and some are kept. A
network must therefore represent every input token, because any of them may be a token to predict
(Devlin et al. 2019, §3.1). Special pieces are never predicted. The random choices for a token
depend only on the run's seed, the pass of the corpus, the example and the token's position.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from data_pipeline.arrays import BoolArray, FieldArrays, Float64Array, Int32Array, UInt64Array
from data_pipeline.config.masking import MaskingConfig
from data_pipeline.random_keys import (
    MASK_KINDS,
    MASKED_TOKENS,
    RANDOM_TOKENS,
    uniform_at_positions,
)
from data_pipeline.tokenizers.tokenizer import Tokenizer

MASK = "<mask>"
IGNORE_INDEX = -1
LABELS_FIELD = "told"  # field of the tokens to predict, aligned with the field of input tokens
SEGMENTS = "segments"  # field of each token's side: 0 for a pair's source, 1 for its target
_WORD = "▁"  # prefix of a word's first piece


class MaskingSeeds(Protocol):
    """Function that returns a seed for each example, [examples], given a use from `random_keys`."""

    def __call__(self, use: int) -> UInt64Array: ...


class Masked(NamedTuple):
    """Texts with some tokens hidden."""

    seen: FieldArrays
    labels: FieldArrays  # IGNORE_INDEX where there is nothing to predict


@dataclass(frozen=True, eq=False)
class MaskingVocabulary:
    """Properties of a tokenizer's pieces that masking needs.

    Attributes:
        mask: the id of the mask.
        ordinary: the ids of all pieces that are not special.
        is_ordinary: [pieces], True for these ids.
        begins_word: [pieces], True for pieces that begin a word, and for special pieces.
    """

    mask: int
    ordinary: Int32Array
    is_ordinary: BoolArray
    begins_word: BoolArray


@lru_cache(maxsize=8)
def vocabulary_of(tokenizer: Tokenizer) -> MaskingVocabulary:
    """Return the properties of a tokenizer's pieces that masking needs.

    Raises:
        TokenizerError: the tokenizer has no mask.
    """
    mask = tokenizer.tag_id(MASK)
    pieces = [tokenizer.piece(number) for number in range(tokenizer.vocabulary_size)]
    is_ordinary = np.ones(len(pieces), dtype=bool)
    is_ordinary[[mask, *tokenizer.special_ids.model_dump().values()]] = False
    begins_word = np.array([piece.startswith(_WORD) for piece in pieces]) | ~is_ordinary
    ordinary = np.flatnonzero(is_ordinary).astype(np.int32)
    return MaskingVocabulary(mask, ordinary, is_ordinary, begins_word)


def mask_tokens(
    field: FieldArrays, vocabulary: MaskingVocabulary, config: MaskingConfig, seeds: MaskingSeeds
) -> Masked:
    """Hide some tokens of texts, each of which has at least one token."""
    ids = field.ids.astype(np.int32)
    is_ordinary = vocabulary.is_ordinary[ids]
    drawn = uniform_at_positions(seeds(MASKED_TOKENS), field.lengths)
    if config.whole_words:
        drawn = drawn[_first_of_word(field, vocabulary)]
    labels = is_ordinary & (drawn <= _bounds(drawn, is_ordinary, field.lengths, config.share))
    kind = uniform_at_positions(seeds(MASK_KINDS), field.lengths)
    which = uniform_at_positions(seeds(RANDOM_TOKENS), field.lengths)
    seen = ids.copy()
    seen[labels & (kind < config.masked)] = vocabulary.mask
    replaced = labels & (kind >= config.masked) & (kind < config.masked + config.random)
    places = (which[replaced] * len(vocabulary.ordinary)).astype(np.int64)
    seen[replaced] = vocabulary.ordinary[places]
    answers = np.where(labels, ids, np.int32(IGNORE_INDEX))
    return Masked(FieldArrays(seen, field.lengths), FieldArrays(answers, field.lengths))


def _bounds(
    drawn: Float64Array, is_ordinary: BoolArray, lengths: Int32Array, share: float
) -> Float64Array:
    """Return thresholds: [tokens]; a token is predicted if its draw is at most its threshold.

    The threshold is just below the share of tokens to predict. If all draws of a text are larger,
    it is the smallest of them, so that at least one token is predicted.
    """
    firsts = np.cumsum(lengths, dtype=np.int64) - lengths
    least = np.minimum.reduceat(np.where(is_ordinary, drawn, 1.0), firsts)
    return np.repeat(np.maximum(least, np.nextafter(share, 0)), lengths)


def _first_of_word(field: FieldArrays, vocabulary: MaskingVocabulary) -> np.ndarray:
    """Return for each token the position of its word's first token: [tokens]."""
    begins = vocabulary.begins_word[field.ids]
    begins[np.cumsum(field.lengths, dtype=np.int64) - field.lengths] = True
    # The first piece after BOS may lack a space.
    begins[1:] |= ~vocabulary.is_ordinary[field.ids[:-1]]
    return np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
