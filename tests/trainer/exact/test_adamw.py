"""Exact AdamW is AdamW, and its bits do not depend on where a vector is cut."""

import pytest
import torch

from trainer.exact.adamw import ExactAdamW

SETTINGS = {"lr": 0.003, "betas": (0.9, 0.98), "eps": 1e-9}
LENGTH = 67  # four AVX-512 vectors of fp32 and an end of three


def gradients(steps, length=LENGTH):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(steps, length, generator=generator)


def updated(parts, steps, *, scale=1.0, weight_decay=0.01, optimizer_class=ExactAdamW):
    """The parts after some steps with the same gradients, put together."""
    parameters = [torch.nn.Parameter(part.clone()) for part in parts]
    groups = [{"params": parameters, "weight_decay": weight_decay}]
    optimizer = optimizer_class(groups, **SETTINGS)
    if scale != 1.0:
        optimizer.gradient_scale = scale
    for gradient in gradients(steps, sum(len(part) for part in parts)).to(parts[0].dtype):
        pieces = gradient.split([len(part) for part in parts])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.clone()
        optimizer.step()
    return torch.cat([p.detach() for p in parameters])


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_a_vector_may_be_cut_at_every_position(scale):
    whole = torch.linspace(-2, 2, LENGTH)
    expected = updated([whole], 5, scale=scale)
    for cut in range(1, LENGTH):
        assert torch.equal(updated([whole[:cut], whole[cut:]], 5, scale=scale), expected), cut


def test_long_vectors_too():
    whole = torch.linspace(-2, 2, 100_003)
    expected = updated([whole], 2)
    for cut in (1, 32_768, 50_001, 100_000):
        assert torch.equal(updated([whole[:cut], whole[cut:]], 2), expected)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_is_adamw(weight_decay):
    """Beside torch's in fp64, from whose own fp32 it is no further away."""
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


def test_clipping_scales_the_gradient():
    """In the second step alone: Adam does not notice a scale that never changes."""
    scales = [1.0, 0.3, 1.0]
    clipped, by_hand, unclipped = (torch.nn.Parameter(torch.ones(LENGTH)) for _ in range(3))
    optimizers = [
        ExactAdamW([{"params": [parameter]}], **SETTINGS)
        for parameter in (clipped, by_hand, unclipped)
    ]
    for gradient, scale in zip(gradients(3), scales, strict=True):
        optimizers[0].gradient_scale = scale
        clipped.grad, by_hand.grad, unclipped.grad = gradient, gradient * scale, gradient
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(clipped, by_hand)
    assert not torch.equal(clipped, unclipped)
