import pytest
import torch

from model.generation import candidates
from model.generation.candidates import best_candidates, block_size

# Scores of two sentences' hypotheses: some are near the best, one is hopelessly low, and that of
# a hypothesis that is not live is -inf.
SCORES = torch.tensor([[-1.0, -1.5, -60.0], [-3.0, -0.1, float("-inf")]])
NEVER = torch.tensor([1, 3])


def check(logits, scores, count, given=None):
    """Compare with a search through all continuations."""
    every = logits.double().log_softmax(-1) + scores.double().unsqueeze(2)
    ruled_out = torch.zeros_like(every, dtype=torch.bool)
    ruled_out[:, :, NEVER] = True
    for row, piece in (given or {}).items():
        ruled_out[row] |= torch.arange(every.shape[2]) != piece
    every[ruled_out] = float("-inf")
    found = best_candidates(logits.clone(), scores, count, NEVER, given or {})
    expected = every.flatten(1).topk(count).values
    torch.testing.assert_close(found.scores_bc.double(), expected, rtol=0, atol=1e-5)
    b = torch.arange(len(every)).unsqueeze(1)
    there = every[b, found.parents_bc, found.tokens_bc]
    torch.testing.assert_close(found.scores_bc.double(), there, rtol=0, atol=1e-5)
    possible = found.scores_bc.isfinite()
    chosen = found.parents_bc * every.shape[2] + found.tokens_bc
    for row, allowed in zip(chosen, possible, strict=True):
        assert len(set(row[allowed].tolist())) == allowed.sum()


@pytest.mark.parametrize("pieces", [50, 1000, 8 * 128, 10 * 80, 4 * 128 + 1])
@pytest.mark.parametrize("count", [1, 6, 30])
@pytest.mark.parametrize("given", [{}, {1: 40}], ids=["free", "given"])
def test_the_best_continuations_of_all_hypotheses_are_found(pieces, count, given, monkeypatch):
    generator = torch.Generator().manual_seed(pieces + count)
    logits = 3 * torch.randn(2, 3, pieces, generator=generator)
    check(logits, SCORES, count, given)
    monkeypatch.setattr(candidates, "CACHE_BYTES", 1)  # search each row separately
    check(logits, SCORES, count, given)


def test_candidates_are_found_if_the_best_tokens_are_forbidden():
    logits = torch.zeros(2, 3, 1000)
    logits[:, :, NEVER] = 20.0
    check(logits, SCORES, 6)


def test_candidates_are_found_if_many_of_the_best_are_in_one_block_or_equal():
    rising = (torch.arange(1000.0) / 100).expand(2, 3, 1000).contiguous()
    check(rising, SCORES, 6)
    peaked = torch.full((2, 3, 1000), -5.0)
    peaked[:, :, 0] = 0.0
    check(peaked, SCORES, 6)


def test_surplus_candidates_have_tokens_of_the_vocabulary():
    width = 3 * 64 + 1
    logits = torch.full((1, 1, width), float("-inf"))
    logits[..., 0] = logits[..., 7] = 0.0
    found = best_candidates(logits, torch.zeros(1, 1), 2, torch.tensor([0]), {})
    assert found.scores_bc.tolist() == [[pytest.approx(-0.6931, abs=1e-4), float("-inf")]]
    assert found.tokens_bc[0, 0] == 7
    assert int(found.tokens_bc.max()) < width


def test_candidates_of_bf16_logits_have_the_scores_of_these_logits():
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(2, 3, 1000, generator=generator)).bfloat16()
    check(logits, SCORES, 6)


@pytest.mark.parametrize(
    ("pieces", "size"),
    [(8000, 64), (10_000, 100), (32_000, 128), (37_000, 100), (9696, 96), (48, 128), (9973, 128)],
)
def test_the_block_size_divides_the_vocabulary_if_possible(pieces, size):
    assert block_size(pieces) == size
