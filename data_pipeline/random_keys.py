"""Random keys and permutations, computed from integers alone with SplitMix64.

    (use, seed, epoch, ...) ──▶ generator state ──▶ outputs: keys ──argsort──▶ permutation

A permutation is the order of SplitMix64 keys (Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators"). The dataset format requires that these numbers never change, which
numpy does not guarantee for its generators. Tests compare them with fixed values.
"""

import numpy as np

from data_pipeline.arrays import Float64Array, Int32Array, Int64Array, UInt64Array, ranges

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
UINT64_MASK = (1 << 64) - 1

# First seed word for each use, so that different uses get different streams of keys.
CORPUS_SHUFFLE = 1
SHARD_SHUFFLE = 2
PAIR_SHUFFLE = 3
MICRO_BATCH_SHUFFLE = 4
SUBWORD_SAMPLING = 5
DOCUMENT_PHASE = 6
MASKED_TOKENS = 7
MASK_KINDS = 8
RANDOM_TOKENS = 9
SINGLE_SIDES = 10


def splitmix64(state: int, count: int) -> UInt64Array:
    """Return the first `count` outputs of the SplitMix64 generator that starts at `state`."""
    return splitmix64_at(state, np.arange(count, dtype=np.uint64))


def splitmix64_at(state: int, numbers: UInt64Array) -> UInt64Array:
    """Return the outputs at the given positions, from 0, of the generator that starts at `state`.

    Outputs at different positions are different.
    """
    return _mixed((numbers + np.uint64(1)) * GOLDEN_GAMMA + np.uint64(state & UINT64_MASK))


def _mixed(z: UInt64Array) -> UInt64Array:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def stream_state(*words: int) -> int:
    """Derive a generator state from seed words (use, seed, epoch, ...)."""
    state = 0
    for word in words:
        state = int(splitmix64(state ^ (word & UINT64_MASK), 1)[0])
    return state


def permutation(count: int, *words: int) -> Int64Array:
    """Return the permutation of `count` items that seed words (use, seed, epoch, ...) determine."""
    state = stream_state(*words)
    # The generator's output function is a bijection, so the keys are distinct and the order does
    # not depend on the sorting algorithm.
    return np.argsort(splitmix64(state, count)).astype(np.int64, copy=False)


def example_seeds(
    use: int, seed: int, pass_number: int, field_number: int, numbers: Int64Array
) -> UInt64Array:
    """Return a seed for each example: [examples].

    A seed depends only on the run's seed, the pass of the corpus, the field and the example. It
    does not depend on the epoch, since one epoch may pass over a corpus twice. It does not depend
    on the other examples read with it, on their order or on the worker.

    Args:
        use: the first seed word, one of the constants of this module.
        numbers: [examples], in the manifest's order.
    """
    state = stream_state(use, seed, pass_number, field_number)
    return splitmix64_at(state, numbers.astype(np.uint64))


def uniform_at_positions(seeds: UInt64Array, lengths: Int32Array) -> Float64Array:
    """Return a random number in [0, 1) for each token: [tokens], examples concatenated.

    Token p of an example gets output p of the generator that starts at the example's seed. The
    number depends only on the example and the position.

    Args:
        seeds: [examples], see `example_seeds`.
        lengths: [examples], in tokens.
    """
    positions = ranges(np.zeros(len(lengths), dtype=np.int64), lengths).astype(np.uint64)
    keys = _mixed((positions + np.uint64(1)) * GOLDEN_GAMMA + np.repeat(seeds, lengths))
    return uniform(keys)


def uniform(keys: UInt64Array) -> Float64Array:
    """Map 64-bit keys to numbers in [0, 1)."""
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53  # 53 bits, as in a float64
