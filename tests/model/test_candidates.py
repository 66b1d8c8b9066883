import pytest
import torch

from model.candidates import BLOCK_PIECES, best_candidates, top


@pytest.mark.parametrize("width", [1000, 16 * BLOCK_PIECES, 8 * BLOCK_PIECES + 1])
@pytest.mark.parametrize("count", [1, 5, 8])
def test_top_is_topk(width, count):
    generator = torch.Generator().manual_seed(width + count)
    values = torch.randn(3, 4, width, generator=generator)
    values[0, 0, 1:] = values[0, 0, :1] - 1  # all but the first in one another's way
    values[1, 1] = torch.arange(width)  # the largest lie in one block
    found, indices = top(values, count)
    assert torch.equal(found, values.topk(count).values)
    assert torch.equal(values.gather(-1, indices), found)
    assert all(len(set(row.tolist())) == count for row in indices.flatten(0, 1))


def test_indices_are_pieces_where_fewer_than_wanted_are_possible():
    width = 3 * BLOCK_PIECES + 1
    values = torch.full((1, 1, width), float("-inf"))
    values[..., 7] = 0.0
    found, indices = top(values, 2)
    assert found.flatten().tolist() == [0.0, float("-inf")]
    assert indices[0, 0, 0] == 7
    assert int(indices.max()) < width


def test_the_best_continuations_of_all_hypotheses():
    generator = torch.Generator().manual_seed(3)
    log_probabilities = torch.randn(2, 3, 500, generator=generator).log_softmax(-1)
    scores = torch.tensor([[-1.0, -1.5, float("-inf")], [-3.0, -0.1, -0.2]])
    found = best_candidates(log_probabilities, scores, 6)
    expected, flat = (log_probabilities + scores.unsqueeze(2)).flatten(1).topk(6)
    assert torch.equal(found.scores_bc, expected)
    assert torch.equal(found.parents_bc, flat // 500)
    assert torch.equal(found.pieces_bc, flat % 500)
