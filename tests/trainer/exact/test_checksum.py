"""Checksums compared with sums of Python integers, and the errors that they detect."""

import itertools

import numpy as np
import pytest
import torch

from trainer.exact import checksum
from trainer.exact.checksum import BLOCK, Checksums, GradientPart

GRID = 2.0**-20
SHIFT = 1.5 * 2**23 * GRID


def on_grid(count, seed, bits=20):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**bits), 2**bits, (count,), generator=generator).float() * GRID


def checksum_of_shifted(shifted, shift):
    sums = Checksums(1, shifted.device)
    sums.add_shifted([GradientPart(0, 0, shifted)], [shift])
    return sums.values()[0]


def checksum_of_part(part, start, shift):
    sums = Checksums(1, part.device)
    sums.add_sums([GradientPart(0, start, part)], [shift])
    return sums.values()[0]


def by_hand(gradient, start=0):
    total = 0
    for index, value in enumerate(gradient.double().tolist(), start=start):
        weight = (((index // BLOCK + 1) * checksum._GOLDEN) | 1) * (2**32 if index % 2 else 1)
        total += weight * round(value / GRID)
    return checksum._signed(total)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 1000])
def test_checksums_of_shifted_and_of_summed_gradients_equal_integer_sums(count):
    gradient = on_grid(count, count)
    assert checksum_of_shifted(gradient + SHIFT, SHIFT) == by_hand(gradient)
    assert checksum_of_part(gradient, 0, SHIFT) == by_hand(gradient)


@pytest.mark.parametrize("cuts", [[0, 1000], [0, 1, 64, 65, 200, 1000], [0, 999, 1000]])
@pytest.mark.parametrize("chunk", [64, 128, 2**18])
def test_checksums_of_parts_add_up_to_that_of_the_whole(cuts, chunk, monkeypatch):
    monkeypatch.setattr(checksum, "CHUNKS", {"cpu": chunk})
    gradient = on_grid(1000, 3)
    parts = [
        checksum_of_part(gradient[begin:end], begin, SHIFT)
        for begin, end in itertools.pairwise(cuts)
    ]
    assert checksum._signed(sum(parts)) == by_hand(gradient)


def test_checksums_of_slots_add_up_to_that_of_their_sum():
    slots = [on_grid(777, seed) for seed in range(7)]
    local = sum(checksum_of_shifted(slot + SHIFT, SHIFT) for slot in slots)
    assert checksum._signed(local) == checksum_of_part(sum(slots), 0, SHIFT)


def test_a_view_at_an_unaligned_address_has_the_right_checksum():
    memory = on_grid(131, 1)
    assert checksum_of_shifted((memory + SHIFT)[1:], SHIFT) == by_hand(memory[1:])


def test_a_single_wrong_element_is_always_detected():
    gradient, generator = on_grid(640, 5), np.random.default_rng(1)
    right = checksum_of_part(gradient, 0, SHIFT)
    for _ in range(500):
        wrong = gradient.clone()
        place, bit = generator.integers(640), generator.integers(20)
        wrong[place] += GRID * 2.0**bit * generator.choice([-1, 1])
        assert checksum_of_part(wrong, 0, SHIFT) != right


@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 63), (0, 64), (2, 130), (100, 399)])
def test_exchanged_elements_are_detected_between_blocks_and_at_odd_distances(one, other):
    gradient = on_grid(640, 6)
    wrong = gradient.clone()
    wrong[[one, other]] = gradient[[other, one]]
    assert checksum_of_part(wrong, 0, SHIFT) != checksum_of_part(gradient, 0, SHIFT)


def test_an_exchange_at_an_even_distance_within_a_block_is_not_detected():
    """The documentation states this limit."""
    gradient = on_grid(640, 6)
    wrong = gradient.clone()
    wrong[[0, 62]] = gradient[[62, 0]]
    assert checksum_of_part(wrong, 0, SHIFT) == checksum_of_part(gradient, 0, SHIFT)


@pytest.mark.parametrize("wrong", [GRID / 3, GRID / 1024, float("nan"), float("inf"), 1e30])
def test_an_element_off_the_grid_is_detected(wrong):
    gradient = on_grid(640, 8, bits=4)
    right = checksum_of_part(gradient, 0, SHIFT)
    gradient[77] = gradient[77] + wrong
    assert checksum_of_part(gradient, 0, SHIFT) != right
