"""Subword sampling: other pieces for the same sentence in each pass over its corpus.

    (seed, pass, field, pair) ──SplitMix64──▶ a seed for each pair
    (sentence, its seed) ──Tokenizer.sample_field──▶ pieces; too long: the stored ones

The seed of a pair depends on these four numbers alone: not on which other pairs are read with it,
in which order or by which worker. Like the permutations of `plan`, it is a promise about the format
(golden numbers in the tests).
"""

import numpy as np

from data_pipeline.arrays import FieldArrays, Int64Array, UInt64Array, concatenate
from data_pipeline.random_keys import splitmix64_at, stream_state
from data_pipeline.tokenizers.tokenizer import Tokenizer

SUBWORD_SAMPLING = 5  # first word of this use's seeds, after those of the permutations in `plan`


def sampling_seeds(
    seed: int, pass_number: int, pair_ids: Int64Array, field_number: int
) -> UInt64Array:
    """The seed with which each pair's sentence is sampled: [pairs]."""
    state = stream_state(SUBWORD_SAMPLING, seed, pass_number, field_number)
    return splitmix64_at(state, pair_ids.astype(np.uint64))


def resample(
    tokenizer: Tokenizer,
    sentences: list[str],
    stored: FieldArrays,
    seeds: UInt64Array,
    *,
    alpha: float,
    max_length: int,
    tag: str | None,
) -> FieldArrays:
    """A random segmentation of each sentence, as `Tokenizer.sample_field` describes it.

    Args:
        stored: the best segmentations. They keep to the limit.
        max_length: most pieces of a sentence, tag and EOS included. A sentence whose sampled
            segmentation has more keeps its stored one.
    """
    sampled = tokenizer.sample_field(sentences, seeds, alpha, tag)
    assert len(sampled.lengths) == len(stored.lengths), "both belong to the same sentences"
    numbers = np.arange(len(sentences))
    chosen = np.where(sampled.lengths > max_length, len(sentences) + numbers, numbers)
    return concatenate([sampled, stored]).take(chosen)
