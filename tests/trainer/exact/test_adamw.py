"""Exact AdamW equals AdamW, and its bits do not depend on where a vector is cut."""

from functools import partial

import pytest
import torch

from trainer.exact import adamw
from trainer.exact.adamw import ExactAdamW

SETTINGS = {"lr": 0.003, "betas": (0.9, 0.98), "eps": 1e-9}
LENGTH = 67  # four AVX-512 vectors of fp32 and a remainder of three


def gradients(steps, length=LENGTH):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(steps, length, generator=generator)


def updated(parts, steps, *, divisor=1.0, weight_decay=0.01, optimizer_class=ExactAdamW):
    """Return the concatenated parts after some steps with the same gradients."""
    parameters = [torch.nn.Parameter(part.clone()) for part in parts]
    groups = [{"params": parameters, "weight_decay": weight_decay}]
    optimizer = optimizer_class(groups, **SETTINGS)
    if divisor != 1.0:
        optimizer.gradient_divisor = divisor
    for gradient in gradients(steps, sum(len(part) for part in parts)).to(parts[0].dtype):
        pieces = gradient.split([len(part) for part in parts])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.clone()
        optimizer.step()
    return torch.cat([p.detach() for p in parameters])


@pytest.fixture(params=["as on a CPU", "as elsewhere"])
def way(request, monkeypatch):
    """Select each of the two implementations of the update."""
    if request.param == "as elsewhere":
        monkeypatch.setattr(adamw, "updates_by_lines", lambda parameter: False)


@pytest.mark.parametrize("divisor", [1.0, 3.7])
def test_cutting_a_vector_does_not_change_the_bits_of_its_update(way, divisor):
    whole = torch.linspace(-2, 2, LENGTH)
    expected = updated([whole], 5, divisor=divisor)
    for cut in range(1, LENGTH):
        assert torch.equal(updated([whole[:cut], whole[cut:]], 5, divisor=divisor), expected), cut


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_cutting_a_long_vector_changes_no_bits_with_any_number_of_threads(way, threads):
    whole = torch.linspace(-2, 2, 100_003)
    expected = updated([whole], 2)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for cut in (1, 32_768, 50_001, 100_000):
            assert torch.equal(updated([whole[:cut], whole[cut:]], 2), expected)
    finally:
        torch.set_num_threads(before)


def test_torchs_fused_adamw_depends_on_the_cut():
    """Otherwise the tests above would prove nothing."""
    whole = torch.linspace(-2, 2, LENGTH)

    def fused(parts):
        return updated(parts, 5, optimizer_class=partial(torch.optim.AdamW, fused=True))

    expected = fused([whole])
    assert any(
        not torch.equal(fused([whole[:cut], whole[cut:]]), expected) for cut in range(1, LENGTH)
    )


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_exact_adamw_is_about_as_close_to_fp64_as_torchs_adamw(way, weight_decay):
    """In fp64, torch's AdamW is the reference; the error is at most twice that of torch's fp32."""
    whole = torch.linspace(-2, 2, LENGTH, dtype=torch.float64)
    exactly, theirs, ours = (
        updated([whole.to(dtype)], 50, weight_decay=weight_decay, optimizer_class=kind).double()
        for dtype, kind in [
            (torch.float64, torch.optim.AdamW),
            (torch.float32, torch.optim.AdamW),
            (torch.float32, ExactAdamW),
        ]
    )
    assert (ours - exactly).abs().max() <= 2 * (theirs - exactly).abs().max()
    assert (ours - whole).abs().mean() > 1e-3


def test_clipping_divides_the_gradient_by_the_divisor(way):
    """Clip in the second step only, because Adam's updates do not depend on a constant divisor."""
    divisors = [1.0, 3.0, 1.0]
    clipped, by_hand, unclipped = (torch.nn.Parameter(torch.ones(LENGTH)) for _ in range(3))
    optimizers = [
        ExactAdamW([{"params": [parameter]}], **SETTINGS)
        for parameter in (clipped, by_hand, unclipped)
    ]
    for gradient, divisor in zip(gradients(3), divisors, strict=True):
        optimizers[0].gradient_divisor = divisor
        by_hand.grad, unclipped.grad = gradient / divisor, gradient.clone()
        clipped.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(clipped, by_hand)
    assert not torch.equal(clipped, unclipped)
