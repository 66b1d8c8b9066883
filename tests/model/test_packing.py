import torch
from hypothesis import given
from hypothesis import strategies as st

from model.packing import packings


def padded(lengths, width):
    """Ids that tell row and position: 100 · row + position + 1, padded with 0."""
    ids = torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = 100 * row + torch.arange(length) + 1
    return ids


@given(
    lengths=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=6),
    more=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_a_row_holds_the_sentences_one_after_another(lengths, more):
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
