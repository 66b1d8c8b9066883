"""Dropout: values, share of zeros, and equal results for equal seeds."""

import pytest
import torch

from model.blocks.dropout import LEVELS, Dropout, dropout

MANY = 2_000_003  # elements: no multiple of the 4 that share a random number


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("share", [1 / LEVELS, 0.1, 0.3, 0.5, 0.999])
def test_dropout_has_the_given_share_of_zeros_and_scales_the_rest(share, dtype):
    torch.manual_seed(1)
    y = dropout(torch.ones(MANY, dtype=dtype), share)
    deviation = (share * (1 - share) / MANY) ** 0.5
    assert (y == 0).float().mean().item() == pytest.approx(share, abs=5 * deviation + 1 / LEVELS)
    kept = y[y != 0]
    assert kept.unique().numel() == 1
    assert kept[0].item() == pytest.approx(1 / (1 - share), rel=0.01)


def test_all_bits_of_a_random_number_are_used():
    """A 63-bit generator would never set the highest bit, so every fourth element would be kept."""
    torch.manual_seed(1)
    y = dropout(torch.ones(400_000), 0.4).view(-1, 4)
    zeros = (y == 0).float().mean(dim=0)
    assert torch.allclose(zeros, torch.full((4,), 0.4), atol=0.01)


def test_neighbouring_elements_are_dropped_independently():
    torch.manual_seed(1)
    zeros = (dropout(torch.ones(1_000_000), 0.5) == 0).float() - 0.5
    for distance in (1, 2, 3, 4, 5, 8, 16):
        correlation = (zeros[distance:] * zeros[:-distance]).mean().item() / 0.25
        assert abs(correlation) < 0.005


def test_the_gradient_of_dropout_has_the_zeros_and_scale_of_its_output():
    torch.manual_seed(1)
    x = torch.randn(7, 11, requires_grad=True)
    y = dropout(x, 0.3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / x).detach())


def test_the_same_seed_keeps_the_same_elements():
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(dropout(torch.ones(3, 5, 7), 0.3))
    assert torch.equal(*results)
    assert not torch.equal(results[0], dropout(torch.ones(3, 5, 7), 0.3))


def test_dropout_does_nothing_in_evaluation_or_for_a_share_of_zero():
    x = torch.randn(10)
    assert Dropout(0.9).eval()(x) is x
    assert dropout(x, 0.0) is x
