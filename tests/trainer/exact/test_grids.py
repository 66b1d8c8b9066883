"""Sums on a grid have the same bits in any order and grouping; limits follow the gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import EngineError
from trainer.exact.grids import (
    DECAY,
    LARGEST,
    SMALLEST_LIMIT_EXPONENT,
    GradientGrids,
    largest_magnitudes,
)


def grids_for(largest: float, micro_batches: int) -> GradientGrids:
    grids = GradientGrids(["weight"], micro_batches)
    grids.widen(np.array([[largest]]))
    return grids


def summed_in_groups(terms, order, cuts):
    """Return the sum of the terms, added in this order within groups, then over the groups."""
    shuffled = [terms[number] for number in order]
    groups = np.split(np.arange(len(terms)), sorted(cuts))
    partial = []
    for group in groups:
        total = torch.zeros_like(terms[0])
        for number in group:
            total = total + shuffled[number]
        partial.append(total)
    total = torch.zeros_like(terms[0])
    for part in partial:
        total = total + part
    return total


@st.composite
def sums(draw):
    micro_batches = draw(st.integers(1, 40))
    exponent = draw(st.integers(-90, 90))
    seed = draw(st.integers(0, 2**32 - 1))
    # Magnitudes over a wide range, and some elements of equal sign at the largest allowed size.
    random = np.random.default_rng(seed)
    sizes = 2.0 ** random.uniform(-24, 0, size=(micro_batches, 64))
    terms = sizes * random.choice([-1, 1], size=sizes.shape)
    terms[:, :8] = 1.0
    order = draw(st.permutations(range(micro_batches)))
    cuts = draw(st.lists(st.integers(0, micro_batches), max_size=4))
    terms = torch.from_numpy(terms * 2.0**exponent).float()
    return micro_batches, list(terms), order, cuts


@given(sums())
def test_rounded_terms_sum_to_the_same_bits_in_any_order_and_grouping(case):
    micro_batches, terms, order, cuts = case
    # The largest term is at the limit, which is four times the value that it was derived from.
    grids = grids_for(float(max(t.abs().max() for t in terms)) / 4, micro_batches)
    assert grids.fits(np.array([[float(t.abs().max())] for t in terms]))
    for term in terms:
        grids.round_([0], [term])
    exactly = torch.stack(terms).double().sum(0)
    for found in (
        summed_in_groups(terms, range(micro_batches), []),
        summed_in_groups(terms, order, cuts),
        torch.stack(terms).sum(0),
    ):
        assert torch.equal(found.double(), exactly)


def test_unrounded_terms_sum_to_bits_that_depend_on_the_order():
    """Otherwise the test above would prove nothing."""
    random = np.random.default_rng(1)
    terms = list(torch.from_numpy(random.normal(size=(8, 64))).float())
    forth = summed_in_groups(terms, range(8), [])
    assert not torch.equal(forth, summed_in_groups(terms, range(7, -1, -1), []))


@given(st.integers(1, 64), st.floats(1e-20, 1e20), st.integers(0, 1000))
def test_rounding_is_to_the_nearest_grid_point_and_idempotent(micro_batches, largest, seed):
    grids = grids_for(largest, micro_batches)
    values = torch.from_numpy(np.random.default_rng(seed).uniform(-largest, largest, 200)).float()
    rounded = values.clone()
    grids.round_([0], [rounded])
    # A limit is less than 8 times the largest value, and the sum of M micro-batches takes ⌈log₂ M⌉
    # bits.
    spacing = 8 * largest * 2.0 ** (max(2, (micro_batches - 1).bit_length()) - 24)
    assert ((rounded.double() - values.double()).abs() <= spacing / 2).all()
    again = rounded.clone()
    grids.round_([0], [again])
    assert torch.equal(again, rounded)


@given(st.floats(2.0**-60, 2.0**60), st.integers(0, 1000))
def test_rounded_bf16_gradients_are_on_the_grid_of_fp32(largest, seed):
    grids = grids_for(largest, 8)
    random = np.random.default_rng(seed)
    values = largest * 2.0 ** random.uniform(-30, 0, size=100) * random.choice([-1, 1], size=100)
    values = torch.from_numpy(values).bfloat16()
    as_fp32 = values.float()
    grids.round_([0], [values])
    grids.round_([0], [as_fp32])
    assert torch.equal(values.float(), as_fp32)


def test_each_parameter_has_a_separate_grid():
    grids = GradientGrids(["large", "small"], 8)
    grids.widen(np.array([[1e6, 1e-6]]))
    small = torch.tensor([1.23456e-6])
    grids.round_([1], [small])
    assert small.item() == pytest.approx(1.23456e-6, rel=1e-4)
    grids.round_([0], [small])
    assert small.item() == 0.0


def test_gradients_of_the_first_step_are_measured_without_rounding():
    grids = GradientGrids(["weight"], 8)
    unrounded = torch.tensor([1 / 3])
    grids.round_([0], [unrounded])
    assert unrounded.item() == torch.tensor(1 / 3).item()
    assert not grids.fits(np.array([[0.5]]))
    assert grids.widen(np.array([[0.5], [0.7]])) == []
    assert grids.fits(np.array([[0.7]]))


def test_a_gradient_beyond_its_limit_widens_only_the_grid_of_its_parameter():
    grids = GradientGrids(["a", "b"], 8)
    grids.widen(np.array([[1.0, 1.0]]))
    much = np.array([[1.0, 1.0], [1.0, 100.0]])
    assert not grids.fits(much)
    assert grids.widen(much) == ["b"]
    assert grids.fits(much)
    assert grids.peaks == {"a": 1.0, "b": 100.0}


def test_limits_decay_slowly_when_gradients_become_smaller():
    grids = grids_for(1.0, 8)
    for _ in range(34):
        grids.follow(np.array([[0.0]]))
    assert grids.peaks["weight"] == pytest.approx(DECAY**34) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_refused_step_restores_the_limits_of_the_step_before(is_resumed):
    grids = grids_for(1.0, 8)
    grids.follow(np.array([[1.5]]))
    if is_resumed:
        peaks, grids = grids.peaks, GradientGrids(["weight"], 8)
        grids.restore(peaks)
    spike, usual = np.array([[1000.0]]), np.array([[6.0]])
    assert grids.fits(usual)
    for _ in range(2):
        assert grids.widen(spike) == ["weight"]
        assert grids.fits(spike)
        grids.revert()
        assert grids.peaks == {"weight": 1.5}
        assert grids.fits(usual)
        assert not grids.fits(spike)


def test_a_refused_first_step_leaves_no_limits():
    grids = grids_for(1.0, 8)
    grids.revert()
    assert grids.peaks == {}
    assert not grids.fits(np.array([[0.0]]))
    gradient = torch.tensor([0.1])
    grids.round_([0], [gradient])
    assert torch.equal(gradient, torch.tensor([0.1]))


def test_a_parameter_with_zero_gradients_has_a_grid():
    grids = grids_for(0.0, 8)
    zero = torch.zeros(3)
    grids.round_([0], [zero])
    assert torch.equal(zero, torch.zeros(3))
    assert grids.fits(np.array([[2.0**SMALLEST_LIMIT_EXPONENT]]))
    assert not grids.fits(np.array([[1e-20]]))


def test_the_largest_gradients_that_count_as_finite_stay_finite_when_rounded():
    grids = grids_for(LARGEST, 2**12)
    gradient = torch.tensor([LARGEST, -LARGEST])
    grids.round_([0], [gradient])
    assert gradient.isfinite().all()
    assert (gradient * 2**12).isfinite().all()


def test_grids_are_restored_from_their_peaks_alone():
    grids = GradientGrids(["a", "b"], 8)
    assert grids.peaks == {}
    for step in range(5):
        largest = np.abs(np.random.default_rng(step).normal(size=(8, 2)))
        (grids.follow if step else grids.widen)(largest)
    resumed = GradientGrids(["a", "b"], 8)
    resumed.restore(grids.peaks)
    ours, theirs = (torch.linspace(-1, 1, 99) / 3 for _ in range(2))
    grids.round_([1], [ours])
    resumed.round_([1], [theirs])
    assert torch.equal(ours, theirs)
    assert resumed.peaks == grids.peaks


@given(st.integers(1, 40), st.integers(0, 1000))
def test_the_bound_is_at_least_every_sum_and_a_power_of_two(micro_batches, seed):
    random = np.random.default_rng(seed)
    terms = torch.from_numpy(random.normal(size=(micro_batches, 16))).float()
    largest = terms.abs().amax(dim=1, keepdim=True).double().numpy()
    grids = grids_for(float(largest.max()), micro_batches)
    for term in terms:
        grids.round_([0], [term])
    bound = grids.bound(largest)
    assert terms.double().sum(0).abs().max() <= bound
    assert np.log2(bound).is_integer()


def test_the_bound_allows_for_rounding_up():
    """A sum slightly below a power of two may be rounded up to it."""
    assert grids_for(1.0, 2).bound(np.array([[1.0], [1 - 1e-12]])) > 2.0


def test_more_micro_batches_than_4096_are_refused():
    GradientGrids(["weight"], 4096)
    with pytest.raises(EngineError, match=r"4097.* only 11 bits remain.*at most 4096"):
        GradientGrids(["weight"], 4097)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("largest", [0.0, 3.0, -3.0, float("inf"), -float("inf"), float("nan")])
def test_the_largest_magnitude_of_a_non_finite_gradient_is_non_finite(dtype, largest):
    gradient = torch.linspace(-1.0, 1.0, 3 * 41, dtype=dtype).view(3, 41)
    gradient[1, 7] = largest
    expected = abs(largest) if abs(largest) != 0.0 else 1.0
    for view in (gradient, gradient.T):
        assert float(largest_magnitudes([view])[0]) == pytest.approx(expected, nan_ok=True)
