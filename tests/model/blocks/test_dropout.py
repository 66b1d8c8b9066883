"""Dropout: the values and the share that are kept; the same seed keeps the same values."""

import pytest
import torch

from model.blocks.dropout import LEVELS, Dropout, dropout

MANY = 2_000_003  # not a multiple of what a draw holds


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("share", [1 / LEVELS, 0.1, 0.3, 0.5, 0.999])
def test_the_share_and_the_expectation_are_those_asked_for(share, dtype):
    torch.manual_seed(1)
    y = dropout(torch.ones(MANY, dtype=dtype), share)
    deviation = (share * (1 - share) / MANY) ** 0.5
    assert (y == 0).float().mean().item() == pytest.approx(share, abs=5 * deviation + 1 / LEVELS)
    kept = y[y != 0]
    assert kept.unique().numel() == 1
    assert kept[0].item() == pytest.approx(1 / (1 - share), rel=0.01)


def test_every_bit_is_drawn():
    """A generator of 63 bits would never have the highest one, so would keep a quarter always."""
    torch.manual_seed(1)
    y = dropout(torch.ones(400_000), 0.4).view(-1, 4)
    zeros = (y == 0).float().mean(dim=0)
    assert torch.allclose(zeros, torch.full((4,), 0.4), atol=0.01)


def test_neighbours_are_independent():
    torch.manual_seed(1)
    zeros = (dropout(torch.ones(1_000_000), 0.5) == 0).float() - 0.5
    for distance in (1, 2, 3, 4, 5, 8, 16):
        correlation = (zeros[distance:] * zeros[:-distance]).mean().item() / 0.25
        assert abs(correlation) < 0.005


def test_the_gradient_is_that_of_what_was_kept():
    torch.manual_seed(1)
    x = torch.randn(7, 11, requires_grad=True)
    y = dropout(x, 0.3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / x).detach())


def test_the_same_seed_keeps_the_same():
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(dropout(torch.ones(3, 5, 7), 0.3))
    assert torch.equal(*results)
    assert not torch.equal(results[0], dropout(torch.ones(3, 5, 7), 0.3))


def test_nothing_is_dropped_in_evaluation_or_for_a_share_of_zero():
    x = torch.randn(10)
    assert Dropout(0.9).eval()(x) is x
    assert dropout(x, 0.0) is x
