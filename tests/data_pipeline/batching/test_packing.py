"""Packing of documents: every token once, rows that fit, and little padding for any lengths."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.batching.packing import (
    MAX_PADDING,
    Part,
    cut_documents,
    pack,
    plan_packed,
    plan_packed_heldout,
    plan_uncut,
)

lengths_of_documents = st.lists(st.integers(1, 70), min_size=1, max_size=40)


def rows_of(plan):
    """Return the parts in each row of each batch, with the tokens that they predict."""
    rows = []
    for start, stop in pairwise(plan.bounds.tolist()):
        numbers = plan.cuts.rows[start:stop]
        assert numbers[0] == 0
        assert set(np.diff(numbers)) <= {0, 1}
        parts = [
            Part(*numbers)
            for numbers in zip(
                plan.order[start:stop].tolist(),
                plan.cuts.starts[start:stop].tolist(),
                (plan.cuts.stops[start:stop] - 1).tolist(),  # a part also has the token before it
                strict=True,
            )
        ]
        rows.append(
            [
                [part for part, row in zip(parts, numbers, strict=True) if row == number]
                for number in range(numbers[-1] + 1)
            ]
        )
    return rows


def assert_each_token_once(rows, lengths):
    found = sorted(part for row in rows for part in row)
    places = dict.fromkeys(range(len(lengths)), 0)
    for part in found:
        assert part.start == places[part.document] < part.stop
        places[part.document] = part.stop
    assert list(places.values()) == list(lengths)


@given(lengths_of_documents, st.integers(1, 20), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_every_token_is_predicted_once_in_rows_and_batches_that_fit(
    lengths, context_length, rows_per_batch, seed
):
    plan = plan_packed(
        np.array(lengths),
        context_length,
        context_length * rows_per_batch,
        seed=seed,
        epoch=0,
        window=0,
    )
    batches = rows_of(plan)
    rows = [row for batch in batches for row in batch]
    assert_each_token_once(rows, lengths)
    assert all(sum(part.size for part in row) <= context_length for row in rows)
    assert all(len(batch) <= rows_per_batch for batch in batches)
    assert sum(len(batch) < rows_per_batch for batch in batches) <= 1


@given(lengths_of_documents, st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_no_document_that_fits_is_cut_if_rows_need_not_be_full(lengths, context_length, seed):
    where = {"seed": seed, "epoch": 0, "window": 0}
    plan = plan_packed(np.array(lengths), context_length, context_length, **where, fills=False)
    rows = [row for batch in rows_of(plan) for row in batch]
    assert_each_token_once(rows, lengths)
    assert all(sum(part.size for part in row) <= context_length for row in rows)
    whole = [part for row in rows for part in row if lengths[part.document] <= context_length]
    assert all(part.size == lengths[part.document] for part in whole)


def test_with_before_0_a_part_has_only_its_predicted_tokens():
    lengths = np.array([30, 7, 12, 1])
    where = {"seed": 1, "epoch": 0, "window": 0}
    for found, with_one_more in (
        (plan_packed(lengths, 8, 16, **where, before=0), plan_packed(lengths, 8, 16, **where)),
        (plan_packed_heldout(lengths, 8, 16, before=0), plan_packed_heldout(lengths, 8, 16)),
    ):
        assert (found.cuts.stops - found.cuts.starts).sum() == lengths.sum()
        assert found.cuts.starts.tolist() == with_one_more.cuts.starts.tolist()
        assert (found.cuts.stops + 1).tolist() == with_one_more.cuts.stops.tolist()
        assert found.order.tolist() == with_one_more.order.tolist()


def fewest_rows(sizes, capacity):
    """Return the fewest rows for uncut parts of these sizes, by trying all placements."""
    best = len(sizes)

    def place(index, rows):
        nonlocal best
        if len(rows) >= best:
            return
        if index == len(sizes):
            best = len(rows)
            return
        for number in range(len(rows)):
            if rows[number] + sizes[index] <= capacity:
                place(index + 1, [*rows[:number], rows[number] + sizes[index], *rows[number + 1 :]])
        place(index + 1, [*rows, sizes[index]])

    place(0, [])
    return best


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
def test_the_number_of_rows_is_within_the_bound_of_best_fit(sizes):
    parts = [Part(number, 0, size) for number, size in enumerate(sizes)]
    rows = pack(parts, 12)
    assert_each_token_once(rows, sizes)
    # Best fit needs at most 11/9 of the fewest rows (Johnson et al. 1974); cutting may need fewer.
    assert -(-sum(sizes) // 12) <= len(rows) <= 11 / 9 * fewest_rows(sizes, 12) + 1


def naive_best_fit(sizes, capacity):
    """Return the room left in each row by best-fit decreasing, in its plainest form."""
    rooms = []
    for size in sorted(sizes, reverse=True):
        fitting = [number for number, room in enumerate(rooms) if room >= size]
        if fitting:
            rooms[min(fitting, key=lambda number: rooms[number])] -= size
        else:
            rooms.append(capacity - size)
    return sorted(rooms)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
@settings(deadline=None)
def test_packing_equals_best_fit_decreasing_if_that_pads_little(sizes):
    parts = [Part(number, 0, size) for number, size in enumerate(sizes)]
    rows = pack(parts, 50)
    expected = naive_best_fit(sizes, 50)
    padding = sum(expected)
    if padding < 50 or padding <= MAX_PADDING * 50 * len(expected):
        assert sorted(50 - sum(part.size for part in row) for row in rows) == expected
        assert all(part.start == 0 for row in rows for part in row)


@pytest.mark.matrix
@pytest.mark.parametrize("context_length", [64, 256, 1024])
@pytest.mark.parametrize(
    "lengths",
    [
        pytest.param(np.random.default_rng(1).integers(2000, 9000, 150), id="scenes of plays"),
        pytest.param(np.random.default_rng(2).integers(8, 25, 4000), id="captions"),
        pytest.param(
            np.minimum(np.random.default_rng(3).zipf(1.5, 3000) * 7, 20_000), id="a Zipf mixture"
        ),
        pytest.param(np.full(900, 614), id="none fits beside another"),
        pytest.param(np.array([200_000]), id="one document"),
    ],
)
def test_less_than_three_percent_is_padding_and_no_token_is_lost(lengths, context_length):
    plan = plan_packed(lengths, context_length, 4 * context_length, seed=1, epoch=0, window=0)
    rows = [row for batch in rows_of(plan) for row in batch]
    assert_each_token_once(rows, lengths.tolist())
    assert 1 - lengths.sum() / (len(rows) * context_length) < 0.03


def test_a_packed_plan_depends_only_on_its_coordinate():
    lengths = np.random.default_rng(0).integers(1, 500, 300)
    arguments = {"seed": 1, "epoch": 0, "window": 0}

    def plan(**changed):
        found = plan_packed(lengths, 64, 256, **arguments | changed)
        return [found.order, found.bounds, found.cuts.starts, found.cuts.stops, found.cuts.rows]

    assert all(np.array_equal(*pair) for pair in zip(plan(), plan(), strict=True))
    for changed in ({"seed": 2}, {"epoch": 1}, {"window": 1}):
        assert not np.array_equal(plan()[0], plan(**changed)[0])


def test_a_document_is_cut_at_different_places_in_each_epoch():
    starts = {
        epoch: {
            start
            for start in plan_packed(
                np.array([10_000]), 64, 64, seed=1, epoch=epoch, window=0
            ).cuts.starts.tolist()
            if start
        }
        for epoch in range(8)
    }
    assert len(set.union(*starts.values())) > 4 * len(starts[0])


def test_a_packed_plan_equals_golden_numbers():
    """A run that resumes with a later version must read the same rows."""
    plan = plan_packed(np.array([5, 100, 30, 7]), 16, 32, seed=3, epoch=1, window=2)
    assert plan.order.tolist() == [1, 1, 2, 0, 2, 1, 1, 1, 2, 1, 1, 3]
    assert plan.bounds.tolist() == [0, 2, 5, 7, 10, 12]
    assert plan.cuts.starts.tolist() == [25, 57, 0, 0, 9, 9, 73, 89, 25, 41, 0, 0]
    assert plan.cuts.stops.tolist() == [42, 74, 10, 6, 26, 26, 90, 101, 31, 58, 10, 8]
    assert plan.cuts.rows.tolist() == [0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0]


@given(st.lists(st.integers(1, 16), min_size=1, max_size=40), st.integers(0, 99))
def test_uncut_parts_are_all_in_rows_that_fit(lengths, seed):
    parts = [Part(number, 3, 3 + length) for number, length in enumerate(lengths)]
    plan = plan_uncut(parts, 16, 32, seed=seed, epoch=0, window=0)
    rows = [row for batch in rows_of(plan) for row in batch]
    # `rows_of` expects parts with one more token.
    found = sorted(part._replace(stop=part.stop + 1) for row in rows for part in row)
    assert found == parts
    assert max(sum(part.size + 1 for part in row) for row in rows) <= 16
    assert max(map(len, rows_of(plan))) <= 2


def test_the_first_part_of_a_heldout_document_begins_at_its_first_token():
    plan = plan_packed_heldout(np.array([40, 3]), 16, 32)
    rows = [row for batch in rows_of(plan) for row in batch]
    assert rows == [[Part(0, 0, 16)], [Part(0, 16, 32)], [Part(0, 32, 40), Part(1, 0, 3)]]


def test_a_heldout_document_is_cut_independently_of_other_documents():
    """Rows may stay half empty, because a document's loss depends on where it is cut."""
    lengths = np.full(9, 10)
    rows = [row for batch in rows_of(plan_packed_heldout(lengths, 16, 32)) for row in batch]
    assert rows == [[Part(number, 0, 10)] for number in range(9)]
    in_training = plan_packed(lengths, 16, 32, seed=0, epoch=0, window=0)
    assert len(in_training.order) > len(lengths)


def test_phases_determine_the_first_cut_of_each_document():
    parts = cut_documents(np.array([10, 3]), [1, 0], 4, np.array([1, 2]))
    assert parts == [Part(1, 0, 3), Part(0, 0, 3), Part(0, 3, 7), Part(0, 7, 10)]
