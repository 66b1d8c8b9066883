"""Random keys, compared with a reference and with golden numbers that later versions must keep."""

import numpy as np
import pytest

from data_pipeline.random_keys import PAIR_SHUFFLE, permutation, splitmix64, splitmix64_at


def reference_splitmix64(state: int, count: int) -> list[int]:
    """Return the outputs of Vigna's splitmix64.c, computed with Python integers."""
    mask = (1 << 64) - 1
    outputs = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        outputs.append(z ^ (z >> 31))
    return outputs


@pytest.mark.parametrize("state", [0, 1, 1234567, -1, 2**64 - 1])
def test_splitmix64_equals_the_reference(state: int) -> None:
    assert splitmix64(state, 50).tolist() == reference_splitmix64(state, 50)


@pytest.mark.parametrize("state", [0, -1, 2**64 - 1])
def test_outputs_can_be_requested_by_number(state: int) -> None:
    numbers = np.array([7, 0, 49, 7], dtype=np.uint64)
    assert np.array_equal(splitmix64_at(state, numbers), splitmix64(state, 50)[[7, 0, 49, 7]])
    last = splitmix64_at(state, np.array([2**64 - 1], dtype=np.uint64))  # the period is 2^64
    assert last.tolist() == reference_splitmix64(state - 0x9E3779B97F4A7C15, 1)


def test_keys_and_permutations_equal_golden_numbers() -> None:
    """All released datasets and checkpoints depend on these numbers. Never change them."""
    assert [hex(key) for key in splitmix64(0, 3).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]
    assert permutation(10, PAIR_SHUFFLE, 1, 2, 3).tolist() == [0, 3, 4, 7, 9, 8, 6, 2, 1, 5]


def test_permutation_equals_the_reference() -> None:
    state = 0
    for word in (1, 2, 3):
        state = reference_splitmix64(state ^ word, 1)[0]
    keys = reference_splitmix64(state, 1000)
    assert permutation(1000, 1, 2, 3).tolist() == sorted(range(1000), key=keys.__getitem__)


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_permutation_has_each_item_once(count: int) -> None:
    assert sorted(permutation(count, 1, 7).tolist()) == list(range(count))


def test_a_permutation_depends_on_every_word() -> None:
    words = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1), (1, -1, 0), (1, 0), (0, 1, 0)]
    assert len({tuple(permutation(50, *word).tolist()) for word in words}) == len(words)
