"""A flat field equals the list of its sequences, also in its parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.arrays import balanced_block, flattened, ranges, totals_before

lists = st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=6)


@pytest.mark.parametrize("sequences", [[], [[]], [[5, 2]], [[2], [], [7, 8, 2], []]])
def test_the_rows_of_a_flat_field_are_its_sequences(sequences: list[list[int]]) -> None:
    assert flattened(sequences).rows() == sequences


@given(lists, st.data())
def test_parts_of_sequences_equal_slices(sequences: list[list[int]], data: st.DataObject) -> None:
    cuts = []
    for number in data.draw(st.permutations(range(len(sequences)))):
        start = data.draw(st.integers(0, len(sequences[number])))
        cuts.append((number, start, data.draw(st.integers(start, len(sequences[number])))))
    order, starts, stops = np.array(cuts, dtype=np.int64).reshape(-1, 3).T
    found = flattened(sequences).take_parts(order, starts, stops)
    assert found.rows() == [sequences[number][start:stop] for number, start, stop in cuts]
    assert found.ids.dtype == found.lengths.dtype == np.int32


@given(lists)
def test_with_first_puts_a_token_before_each_sequence(sequences: list[list[int]]) -> None:
    found = flattened(sequences).with_first(7)
    assert found.rows() == [[7, *sequence] for sequence in sequences]
    assert found.lengths.dtype == np.int32


@given(lists)
def test_totals_before_each_sequence_equal_sums(sequences: list[list[int]]) -> None:
    lengths = flattened(sequences).lengths
    found = totals_before(lengths, np.arange(len(sequences) + 1))
    assert found.tolist() == [sum(map(len, sequences[:n])) for n in range(len(sequences) + 1)]
    assert found.dtype == np.int64


def test_totals_of_many_tokens_are_counted_in_64_bits() -> None:
    lengths = np.full(3, 2**30, dtype=np.int32)
    assert totals_before(lengths, np.array([3])).tolist() == [3 * 2**30]


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 4)), max_size=6))
def test_ranges_equal_concatenated_python_ranges(given: list[tuple[int, int]]) -> None:
    starts, sizes = np.array(given, dtype=np.int64).reshape(-1, 2).T
    expected = [number for start, size in given for number in range(start, start + size)]
    assert ranges(starts, sizes).tolist() == expected


@given(st.integers(1, 9), st.integers(0, 40))
def test_blocks_divide_items_evenly_and_the_first_blocks_have_more(blocks: int, items: int) -> None:
    found = [balanced_block(index, blocks, items) for index in range(blocks)]
    assert [item for block in found for item in block] == list(range(items))
    sizes = [len(block) for block in found]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1
