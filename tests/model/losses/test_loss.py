import pytest
import torch
from support.gradients import assert_same_gradients
from support.sizes import Sizes
from torch.nn import functional as F

from model.losses.loss import MIN_CHUNK_TOKENS, label_smoothed_sums

TOKENS = 2 * MIN_CHUNK_TOKENS + 7


def case(dtype=torch.float32, tokens=TOKENS):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(23, 16, generator=generator).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(0, 23, (tokens,), generator=generator)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("tokens", [TOKENS, MIN_CHUNK_TOKENS, 1])
def test_sums_and_gradients_equal_torchs_cross_entropy(label_smoothing, tokens):
    hidden, weight, target = case(tokens=tokens)
    sums = label_smoothed_sums(hidden, weight, target, label_smoothing)
    logits = F.linear(hidden, weight)
    expected = F.cross_entropy(logits, target, label_smoothing=label_smoothing, reduction="sum")
    torch.testing.assert_close(sums.smoothed, expected, rtol=1e-6, atol=0)
    plain = F.cross_entropy(logits, target, reduction="sum").detach()
    torch.testing.assert_close(sums.nll, plain, rtol=1e-6, atol=0)
    assert not sums.nll.requires_grad
    assert_same_gradients(
        sums.smoothed / tokens, expected / tokens, [hidden, weight], rtol=0, atol=1e-6
    )


def test_losses_of_bf16_inputs_are_summed_in_fp32():
    hidden, weight, target = case(torch.bfloat16)
    sums = label_smoothed_sums(hidden, weight, target, 0.1)
    assert sums.smoothed.dtype == torch.float32
    logits = F.linear(hidden, weight).float()
    expected = F.cross_entropy(logits, target, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(sums.smoothed, expected, rtol=1e-6, atol=0)
    assert_same_gradients(
        sums.smoothed / TOKENS, expected / TOKENS, [hidden, weight], rtol=2e-2, atol=1e-3
    )


def test_bf16_gradients_of_many_chunks_are_summed_in_fp32():
    """Each chunk adds to the gradient of the matrix; sums in bf16 would stop growing."""
    chunks = 16
    hidden, weight, target = case(torch.bfloat16, chunks * MIN_CHUNK_TOKENS)
    label_smoothed_sums(hidden, weight, target, 0.1).smoothed.backward()
    exact = [given.detach().double().requires_grad_() for given in (hidden, weight)]
    logits = F.linear(*exact)
    F.cross_entropy(logits, target, label_smoothing=0.1, reduction="sum").backward()
    expected = exact[1].grad
    error = (weight.grad.double() - expected).norm() / expected.norm()
    assert error < 2**-8  # one rounding to bf16, and the errors of chunks' probabilities


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_logits_of_a_whole_batch_are_never_in_memory_at_once(dtype):
    hidden, weight, target = case(dtype)
    with Sizes() as seen:
        label_smoothed_sums(hidden, weight, target, 0.1).smoothed.backward()
    chunk = MIN_CHUNK_TOKENS * len(weight)
    assert seen.rows == [MIN_CHUNK_TOKENS, MIN_CHUNK_TOKENS, 7]
    assert seen.largest == max(chunk, hidden.numel()) < len(hidden) * len(weight)


def test_without_label_smoothing_the_loss_equals_the_nll_bit_by_bit():
    sums = label_smoothed_sums(*case(), 0.0)
    assert sums.smoothed.item() == sums.nll.item()


def test_sums_are_the_same_in_a_pass_without_gradients():
    with_gradients = label_smoothed_sums(*case(), 0.1)
    with torch.no_grad():
        without = label_smoothed_sums(*case(), 0.1)
    assert not without.smoothed.requires_grad
    assert torch.equal(without.smoothed, with_gradients.smoothed)


def test_a_loss_of_huge_logits_stays_finite():
    hidden, weight = torch.tensor([[1e4]]), torch.tensor([[1.0], [-1.0], [0.0]])
    assert label_smoothed_sums(hidden, weight, torch.tensor([1]), 0.1).smoothed.isfinite()


def test_the_loss_of_no_tokens_is_zero_with_zero_gradients():
    hidden, weight, target = case(tokens=0)
    sums = label_smoothed_sums(hidden, weight, target, 0.1)
    sums.smoothed.backward()
    assert sums.smoothed == 0
    assert sums.nll == 0
    assert not weight.grad.any()
