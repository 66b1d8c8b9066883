"""The exact norm equals the norm, and has the same bits wherever the vector is cut."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.exact.norm import _SMALL, ROW, norm, squares_in_units
from trainer.process.distributed import sum_of_integers_over_ranks
from trainer.process.placement import Placement


def vector(length, seed=1):
    generator = torch.Generator().manual_seed(seed)
    sizes = 2.0 ** (-20 * torch.rand(length, generator=generator))
    return sizes * torch.randn(length, generator=generator).clamp(-1, 1)


@pytest.mark.parametrize("length", [0, 1, ROW - 1, ROW, 5 * ROW + 7, 40 * ROW + 1])
def test_the_exact_norm_equals_the_norm(length):
    values = vector(length)
    values[:1] = 1.0  # equal to the bound, because the error is relative to the bound
    expected = math.sqrt(math.fsum(v * v for v in values.tolist()))
    assert norm([values], 1.0, Placement()) == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.integers(0, 3 * ROW), max_size=5), st.permutations(range(6)))
def test_the_norm_does_not_depend_on_cuts_and_order(cuts, order):
    values = vector(3 * ROW)
    whole = norm([values], 1.0, Placement())
    parts = torch.tensor_split(values, sorted(cuts))
    shuffled = [parts[number] for number in order if number < len(parts)]
    assert norm(shuffled, 1.0, Placement()) == whole
    assert norm([values.flip(0)], 1.0, Placement()) == whole


def test_a_plain_sum_of_squares_depends_on_the_cut():
    """Otherwise the test above would prove nothing."""
    values = vector(3 * ROW)
    squares = values * values
    assert len({float(squares[:cut].sum() + squares[cut:].sum()) for cut in range(50)}) > 1


@pytest.mark.parametrize("exponent", [-100, -20, 0, 30, 90])
def test_the_norm_scales_exactly_with_the_bound(exponent):
    values = vector(1000)
    scaled = norm([values * 2.0**exponent], 2.0**exponent, Placement())
    assert scaled == norm([values], 1.0, Placement()) * 2.0**exponent


def test_squares_of_elements_as_large_as_the_bound_are_exact():
    elements = torch.ones(20 * ROW)
    assert squares_in_units([elements], 2.0**-41) == 20 * ROW * 2**41


def test_a_sum_of_squares_beyond_64_bits_is_exact():
    rows = 3000  # each row has 2⁵³ units
    assert squares_in_units([torch.ones(rows * ROW)], 2.0**-41) == rows * 2**53 > 2**64


def test_joined_small_pieces_and_split_large_pieces_are_counted_once():
    lengths = [1, 5, _SMALL - 1, _SMALL, _SMALL + 1, 3 * _SMALL + 17, ROW, 0]
    pieces = [vector(length, seed) for seed, length in enumerate(lengths)]
    unit = 2.0**-41
    shift = 1.5 * 2**52 * unit
    squares = torch.cat(pieces).double().square().add(shift).sub(shift)
    expected = sum(int(square / unit) for square in squares.tolist())
    assert squares_in_units(pieces, unit) == expected


def test_the_norm_of_a_zero_gradient_with_bound_zero_is_zero():
    assert norm([torch.zeros(5)], 0.0, Placement()) == 0.0


@pytest.mark.parametrize("ranks", [1, 3])
def test_integers_beyond_64_bits_are_summed_exactly(rank_pools, ranks):
    values = [2**80 + 12345, 2**53 - 1, 2**90 + 2**52 + 1][:ranks]
    sums = rank_pools(ranks).run(_sum_of_mine, values)
    assert set(sums) == {sum(values)}


def _sum_of_mine(placement, values):
    return sum_of_integers_over_ranks(values[placement.rank], placement)
