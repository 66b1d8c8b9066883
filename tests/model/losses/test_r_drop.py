"""R-Drop's sums and gradients compared with torch's cross-entropy and KL divergence."""

import pytest
import torch
from support.gradients import assert_same_gradients
from support.sizes import Sizes
from torch.nn import functional as F

from model.losses.loss import MIN_CHUNK_TOKENS, label_smoothed_sums
from model.losses.r_drop import RDrop, r_drop_sums

TOKENS = MIN_CHUNK_TOKENS + 7


def case(dtype=torch.float32, tokens=TOKENS):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2 * tokens, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(23, 16, generator=generator).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(0, 23, (tokens,), generator=generator).repeat(2)


def by_torch(hidden, weight, target, label_smoothing, alpha):
    """Return half of the paper's equation 4 and the divergence, summed over tokens."""
    logits = F.linear(hidden, weight).float()
    entropies = F.cross_entropy(logits, target, label_smoothing=label_smoothing, reduction="sum")
    p, q = logits.log_softmax(dim=1).chunk(2)
    apart = sum(
        F.kl_div(one, other, log_target=True, reduction="sum") for one, other in ((p, q), (q, p))
    )
    return entropies / 2 + alpha / 4 * apart, apart / 2


@pytest.mark.parametrize("alpha", [0.0, 0.7, 5.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tokens", [TOKENS, MIN_CHUNK_TOKENS // 2, 1])
def test_sums_and_gradients_equal_those_of_the_formula(alpha, label_smoothing, tokens):
    hidden, weight, target = case(tokens=tokens)
    sums = r_drop_sums(hidden, weight, target, label_smoothing, alpha)
    expected, divergence = by_torch(hidden, weight, target, label_smoothing, alpha)
    torch.testing.assert_close(sums.smoothed, expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(sums.divergence, divergence.detach(), rtol=2e-6, atol=0)
    plain = F.cross_entropy(F.linear(hidden, weight), target, reduction="sum").detach() / 2
    torch.testing.assert_close(sums.nll, plain, rtol=1e-6, atol=0)
    assert_same_gradients(
        sums.smoothed / tokens, expected / tokens, [hidden, weight], rtol=1e-4, atol=2e-6
    )


def test_losses_of_bf16_inputs_are_summed_in_fp32():
    hidden, weight, target = case(torch.bfloat16)
    sums = r_drop_sums(hidden, weight, target, 0.1, 5.0)
    assert sums.smoothed.dtype == torch.float32
    expected, _ = by_torch(hidden, weight, target, 0.1, 5.0)
    torch.testing.assert_close(sums.smoothed, expected, rtol=1e-5, atol=0)
    assert_same_gradients(
        sums.smoothed / TOKENS, expected / TOKENS, [hidden, weight], rtol=2e-2, atol=3e-3
    )


def test_the_logits_of_a_whole_batch_are_never_in_memory_at_once():
    hidden, weight, target = case()
    with Sizes() as seen:
        r_drop_sums(hidden, weight, target, 0.1, 5.0).smoothed.backward()
    chunk = MIN_CHUNK_TOKENS * len(weight)  # tokens of both passes together
    assert seen.rows == [MIN_CHUNK_TOKENS, MIN_CHUNK_TOKENS, 14]
    assert seen.largest == max(chunk, hidden.numel()) < len(hidden) * len(weight)


def test_two_equal_passes_have_the_loss_of_a_single_pass():
    hidden, weight, target = case()
    hidden, target = hidden[:TOKENS], target[:TOKENS]
    one = label_smoothed_sums(hidden, weight, target, 0.1)
    two = RDrop(0.1, 5.0)(hidden.repeat(2, 1), weight, target.repeat(2))
    assert two.divergence == 0
    torch.testing.assert_close(two.smoothed, one.smoothed, rtol=1e-6, atol=0)
    torch.testing.assert_close(two.nll, one.nll, rtol=1e-6, atol=0)


def test_sums_are_the_same_in_a_pass_without_gradients():
    with_gradients = r_drop_sums(*case(), 0.1, 5.0)
    with torch.no_grad():
        without = r_drop_sums(*case(), 0.1, 5.0)
    for one, other in zip(with_gradients, without, strict=True):
        assert one.item() == other.item()
