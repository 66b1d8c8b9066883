import torch
from hypothesis import given
from hypothesis import strategies as st

from model.blocks.packing import packing_of_parts, packings, part_positions


def padded(lengths, width):
    """Return ids that encode row and position: 100 · row + position + 1, padded with 0."""
    ids = torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = 100 * row + torch.arange(length) + 1
    return ids


@given(
    lengths=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=6),
    more=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_packed_sentences_follow_each_other_in_one_row(lengths, more):
    sides = list(zip(*lengths, strict=True))
    batches = [padded(side, max(side) + extra) for side, extra in zip(sides, more, strict=True)]
    found = packings(*(ids != 0 for ids in batches))
    for side, ids, packing in zip(sides, batches, found, strict=True):
        row = [100 * number + p + 1 for number, length in enumerate(side) for p in range(length)]
        assert packing.pack(ids).tolist() == [row]
        assert packing.positions_n.tolist() == [p for length in side for p in range(length)]
        assert packing.max_seqlen == max(side)
        assert packing.cu_seqlens.dtype == torch.int32
        assert packing.cu_seqlens.tolist() == [
            sum(side[:number]) for number in range(len(side) + 1)
        ]


def in_parts(rows, width):
    """Return the part number of each token in rows of parts of these lengths; padding has -1."""
    part = torch.full((len(rows), width), -1)
    for row, lengths in enumerate(rows):
        numbers = [number for number, length in enumerate(lengths) for _ in range(length)]
        part[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
    return part


rows_of_parts = st.lists(
    st.lists(st.integers(1, 7), min_size=0, max_size=4), min_size=1, max_size=4
).filter(any)


@given(rows=rows_of_parts, more=st.integers(0, 3))
def test_parts_of_rows_are_packed_like_sentences(rows, more):
    width = max(map(sum, rows)) + more
    ids = padded([sum(lengths) for lengths in rows], width)
    part = in_parts(rows, width)
    flat = [length for lengths in rows for length in lengths]
    positions = [p for length in flat for p in range(length)]

    position = part_positions(part)
    assert position[part >= 0].tolist() == positions
    assert not position[part < 0].any()

    packing = packing_of_parts(part)
    assert packing.pack(ids).tolist() == [ids[ids != 0].tolist()]
    assert packing.positions_n.tolist() == positions
    assert packing.max_seqlen == max(flat)
    assert packing.cu_seqlens.dtype == torch.int32
    assert packing.cu_seqlens.tolist() == [sum(flat[:number]) for number in range(len(flat) + 1)]
