import pytest
import torch

from model.candidates import Candidates, best_blocks, best_candidates, block_size

# One hypothesis that is hardly worse than another, one that is out of the question, one not live.
SCORES = torch.tensor([[-1.0, -1.5, -60.0], [-3.0, -0.1, float("-inf")]])


def candidates(log_probabilities: torch.Tensor, scores: torch.Tensor, count: int) -> Candidates:
    blocks = best_blocks(log_probabilities, scores, count)
    return best_candidates(blocks, scores, count, log_probabilities.shape[2])


def check(log_probabilities, scores, count):
    """Against a search through everything."""
    found = candidates(log_probabilities, scores, count)
    every = log_probabilities + scores.unsqueeze(2)
    assert torch.equal(found.scores_bc, every.flatten(1).topk(count).values)
    b = torch.arange(len(every)).unsqueeze(1)
    assert torch.equal(every[b, found.parents_bc, found.pieces_bc], found.scores_bc)
    chosen = found.parents_bc * every.shape[2] + found.pieces_bc
    assert all(len(set(row.tolist())) == count for row in chosen)


@pytest.mark.parametrize("pieces", [50, 1000, 16 * 64, 10 * 80, 8 * 64 + 1])
@pytest.mark.parametrize("count", [1, 6, 30])
def test_the_best_continuations_of_all_hypotheses(pieces, count):
    generator = torch.Generator().manual_seed(pieces + count)
    log_probabilities = torch.randn(2, 3, pieces, generator=generator).log_softmax(-1)
    check(log_probabilities, SCORES, count)


def test_many_of_the_best_in_one_block_or_equal():
    rising = torch.arange(1000.0).expand(2, 3, 1000).contiguous()
    check(rising, SCORES, 6)
    peaked = torch.full((2, 3, 1000), -5.0)
    peaked[:, :, 0] = 0.0
    check(peaked, SCORES, 6)


def test_pieces_are_in_the_vocabulary_where_fewer_than_wanted_are_possible():
    width = 3 * 64 + 1
    log_probabilities = torch.full((1, 1, width), float("-inf"))
    log_probabilities[..., 7] = 0.0
    found = candidates(log_probabilities, torch.zeros(1, 1), 2)
    assert found.scores_bc.tolist() == [[0.0, float("-inf")]]
    assert found.pieces_bc[0, 0] == 7
    assert int(found.pieces_bc.max()) < width


@pytest.mark.parametrize(
    ("pieces", "size"),
    [(8000, 64), (10_000, 80), (32_000, 64), (37_000, 64), (48, 48), (16 * 7, 112), (50, 64)],
)
def test_blocks_make_a_whole_vocabulary_if_they_can(pieces, size):
    assert block_size(pieces) == size
