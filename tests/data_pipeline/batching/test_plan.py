"""The plan, compared with brute force and with golden numbers that later versions must keep."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.arrays import balanced_block, ranges
from data_pipeline.batching.plan import (
    Cursor,
    cut,
    plan_equal_numbers,
    plan_window,
    slots_of_rank,
    sort_by_length,
)
from data_pipeline.errors import BatchingError
from data_pipeline.random_keys import (
    MICRO_BATCH_SHUFFLE,
    PAIR_SHUFFLE,
    permutation,
)

reproducible = settings(max_examples=60, deadline=None, derandomize=True)


def test_the_plan_of_a_window_equals_golden_numbers() -> None:
    """All released datasets and checkpoints depend on these numbers. Never change them."""
    lengths = np.array([[3, 5], [4, 4], [9, 2], [5, 5], [2, 2], [7, 8], [1, 3], [6, 6]])
    plan = plan_window(lengths, budget=16, seed=1, epoch=0, window=0)
    assert plan.order.tolist() == [0, 3, 2, 4, 6, 1, 7, 5]
    assert plan.bounds.tolist() == [0, 2, 3, 6, 8]


@reproducible
@given(st.integers(1, 40), st.integers(0, 200))
def test_balanced_blocks_differ_by_at_most_one_item(blocks: int, items: int) -> None:
    shares = [balanced_block(index, blocks, items) for index in range(blocks)]
    assert [item for share in shares for item in share] == list(range(items))
    sizes = [len(share) for share in shares]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


lengths_lists = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=80)


@reproducible
@given(lengths_lists, st.integers(30, 200), st.integers(0, 5))
def test_a_window_has_each_pair_once_within_the_budget(
    pairs: list[tuple[int, int]], budget: int, seed: int
) -> None:
    lengths = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    plan = plan_window(lengths, budget, seed, epoch=1, window=2)
    assert sorted(plan.order.tolist()) == list(range(len(pairs)))
    assert plan.bounds[0] == 0
    assert plan.bounds[-1] == len(pairs)
    for start, stop in pairwise(plan.bounds):
        members = lengths[plan.order[start:stop]]
        assert len(members) > 0
        assert len(members) * members.max() <= budget


def test_a_plan_of_equal_micro_batches_equals_golden_numbers() -> None:
    """Never change these numbers."""
    lengths = np.array([[3, 5], [4, 4], [9, 2], [5, 5], [2, 2], [7, 8], [1, 3], [6, 6]])
    plan = plan_equal_numbers(lengths, 3, seed=1, epoch=0, window=0)
    assert plan.order.tolist() == [0, 7, 5, 4, 6, 1]
    assert plan.bounds.tolist() == [0, 3, 6]


@reproducible
@given(lengths_lists, st.integers(1, 9), st.integers(0, 5))
def test_equal_micro_batches_leave_out_fewer_pairs_than_a_micro_batch(
    pairs: list[tuple[int, int]], size: int, seed: int
) -> None:
    lengths = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    plan = plan_equal_numbers(lengths, size, seed, epoch=1, window=2)
    assert np.diff(plan.bounds).tolist() == [size] * (len(pairs) // size)
    assert plan.bounds[-1] == len(plan.order) == len(set(plan.order.tolist()))
    longest = [lengths[plan.order[a:b]].max(axis=1) for a, b in pairwise(plan.bounds)]
    by_length = sorted(longest, key=lambda of_one: (of_one.max(), of_one.min()))
    assert all(one.max() <= two.min() for one, two in pairwise(by_length))
    assert all((np.diff(of_one) >= 0).all() for of_one in longest)


def test_different_pairs_are_left_out_in_each_epoch_and_window() -> None:
    lengths = np.full((10, 2), 5)
    left_out = {
        frozenset(range(10)) - set(plan_equal_numbers(lengths, 4, 1, epoch, window).order.tolist())
        for epoch in range(3)
        for window in range(2)
    }
    assert {len(pairs) for pairs in left_out} == {2}
    assert len(left_out) > 3


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_window_without_pairs_has_no_micro_batches(dtype: type) -> None:
    plan = plan_window(np.empty((0, 2), dtype=dtype), 100, 1, 2, 3)
    assert plan.order.tolist() == []
    assert plan.bounds.tolist() == [0]


def test_a_plan_is_repeatable_and_differs_by_coordinate() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, (300, 2))
    first, second = (plan_window(lengths, 100, 1, 2, 3) for _ in range(2))
    assert np.array_equal(first.order, second.order)
    assert np.array_equal(first.bounds, second.bounds)
    others = [plan_window(lengths, 100, *where) for where in ((2, 2, 3), (1, 3, 3), (1, 2, 4))]
    assert all(not np.array_equal(first.order, other.order) for other in others)


@reproducible
@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 120))
def test_cut_equals_brute_force(values: list[int], budget: int) -> None:
    longest = np.sort(np.array(values, dtype=np.int64))
    bounds = [0]
    for end in range(1, len(values) + 1):
        start = bounds[-1]
        if end - start > 1 and (end - start) * longest[end - 1] > budget:
            bounds.append(end - 1)
    if values:
        bounds.append(len(values))
    assert cut(longest, budget).tolist() == bounds


@reproducible
@given(st.lists(st.integers(1, 12), max_size=25), st.integers(12, 60))
def test_cut_makes_the_fewest_pieces(values: list[int], budget: int) -> None:
    longest = np.sort(np.array(values, dtype=np.int64))
    fewest = [0]  # pieces for the first 0, 1, … members
    for stop in range(1, len(values) + 1):
        starts = [i for i in range(stop) if (stop - i) * longest[stop - 1] <= budget]
        fewest.append(1 + min(fewest[start] for start in starts))
    assert len(cut(longest, budget)) - 1 == fewest[-1]


def test_the_memory_of_cut_depends_on_the_pairs_and_not_on_the_budget() -> None:
    assert cut(np.array([1, 2, 3]), 10**15).tolist() == [0, 3]


@pytest.mark.parametrize("offset", [0, 2**15])  # 16-bit keys and longer keys
def test_sort_by_length_equals_brute_force(offset: int) -> None:
    lengths = np.random.default_rng(1).integers(1, 12, (400, 2)) + offset

    def key(pair: int) -> tuple[int, int]:
        source, target = lengths[pair].tolist()
        longest = max(source, target)
        return longest, (source - target if longest % 2 else target - source)

    assert sort_by_length(lengths).tolist() == sorted(range(400), key=key)


def test_sorting_by_length_keeps_padding_low() -> None:
    rng = np.random.default_rng(2)
    source = rng.poisson(14, 5000) + 2
    lengths = np.stack([source, np.maximum(2, source + rng.integers(-3, 4, 5000))], axis=1)
    plan = plan_window(lengths, 1024, 0, 0, 0)
    longest = np.maximum.reduceat(lengths[plan.order], plan.bounds[:-1], axis=0)
    padded = longest * np.diff(plan.bounds)[:, None]
    assert (1 - lengths.sum(axis=0) / padded.sum(axis=0)).max() < 0.04


def test_a_pair_over_the_budget_is_refused_with_the_remedy() -> None:
    lengths = np.array([[3, 4], [7, 51], [2, 2]])
    with pytest.raises(
        BatchingError, match=r"7 and 51 tokens .* may have at most 50 tokens\. Raise .* to 51"
    ):
        plan_window(lengths, 50, 0, 0, 0)


def test_ranges_equals_a_loop() -> None:
    starts, sizes = np.array([5, 0, 9, 2]), np.array([3, 0, 1, 4])
    assert ranges(starts, sizes).tolist() == [5, 6, 7, 9, 2, 3, 4, 5]
    assert ranges(starts[:0], sizes[:0]).tolist() == []


@pytest.mark.parametrize("slots", range(1, 25))
def test_ranks_divide_the_slots_in_order(slots: int) -> None:
    for ranks in range(1, slots + 1):
        dealt = [slots_of_rank(rank, ranks, slots) for rank in range(ranks)]
        assert [slot for share in dealt for slot in share] == list(range(slots))
        assert {len(share) for share in dealt} <= {slots // ranks, -(-slots // ranks)}


def test_more_ranks_than_slots_are_refused() -> None:
    with pytest.raises(BatchingError, match=r"9 ranks and only 8 .* at most 8 ranks"):
        slots_of_rank(0, 9, 8)


@reproducible
@given(*[st.integers(min_value=0)] * 3)
def test_a_cursor_read_from_json_equals_the_original(epoch: int, window: int, offset: int) -> None:
    cursor = Cursor(epoch, window, offset)
    assert cursor.to_json() == {"epoch": epoch, "window": window, "offset": offset}
    assert Cursor.from_json(json.loads(json.dumps(cursor.to_json()))) == cursor


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"epoch": 1, "window": 0},
        {"epoch": 1, "window": 0, "offset": -1},
        {"epoch": 1, "window": 0, "offset": "4"},
        {"epoch": 1, "window": 0, "offset": True},
        {"epoch": 1, "window": 0, "offset": 0, "step": 5},
    ],
)
def test_damaged_cursors_are_refused(value: dict[str, object]) -> None:
    with pytest.raises(BatchingError, match="three non-negative integers"):
        Cursor.from_json(value)


COORDINATES = [(1, 0, 0), (1, 3, 0), (1, 0, 3), (1, 3, 3), (6, 3, 3)]  # seed, epoch, window


@pytest.mark.parametrize("where", COORDINATES)
def test_pairs_of_a_window_are_shuffled_by_seed_epoch_and_window(where: tuple[int, ...]) -> None:
    """The pairs have equal lengths and form one micro-batch, so sorting does not reorder them."""
    plan = plan_window(np.full((40, 2), 7), 40 * 7, *where)
    assert plan.bounds.tolist() == [0, 40]
    assert plan.order.tolist() == permutation(40, PAIR_SHUFFLE, *where).tolist()


@pytest.mark.parametrize("where", COORDINATES)
def test_micro_batches_of_a_window_are_shuffled_by_seed_epoch_and_window(
    where: tuple[int, ...],
) -> None:
    """Each micro-batch has one pair, so that the shuffle of pairs changes nothing."""
    lengths = np.arange(40, 80)
    plan = plan_window(np.stack([lengths, lengths], axis=1), 79, *where)
    assert len(plan.bounds) == 41
    assert plan.order.tolist() == permutation(40, MICRO_BATCH_SHUFFLE, *where).tolist()
