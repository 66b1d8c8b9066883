"""Subword sampling: different pieces for the same sentence in each pass over its corpus.

Random numbers come from a seed for each pair:

    (seed, pass, field, pair) ──random_keys.example_seeds──▶ a seed for each pair
    (sentence, its seed) ──Tokenizer.sample_field──▶ pieces; if too many, the stored ones are used
"""

import numpy as np

from data_pipeline.arrays import FieldArrays, UInt64Array, concatenate
from data_pipeline.tokenizers.tokenizer import Tokenizer


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
    """Sample a random segmentation of each sentence; see `Tokenizer.sample_field`.

    Args:
        stored: the segmentations stored in the dataset, which are not longer than `max_length`.
        max_length: maximum pieces of a sentence, tag and EOS included. If a sampled segmentation is
            longer, the stored one is used.
    """
    sampled = tokenizer.sample_field(sentences, seeds, alpha, tag)
    assert len(sampled.lengths) == len(stored.lengths), "both belong to the same sentences"
    numbers = np.arange(len(sentences))
    chosen = np.where(sampled.lengths > max_length, len(sentences) + numbers, numbers)
    return concatenate([sampled, stored]).take(chosen)
