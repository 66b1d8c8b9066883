"""Gradients of two ways to compute a loss, held to each other."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.losses.loss import CrossEntropy

Pass = tuple[list[Tensor], dict[str, Tensor]]  # the losses, and the gradients by name


def assert_same_gradients(
    ours: Tensor, theirs: Tensor, tensors: Sequence[Tensor], *, rtol: float, atol: float
) -> None:
    """Of both losses by these tensors, whose dtype ours have."""
    gradients, expected = (torch.autograd.grad(loss, tensors) for loss in (ours, theirs))
    for found, wanted, tensor in zip(gradients, expected, tensors, strict=True):
        assert found.dtype == tensor.dtype
        torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol)


def loss_and_gradients(network: nn.Module, *batches: Sequence[Any]) -> Pass:
    """The smoothed loss and the NLL of batches, and the gradients of a part of the first."""
    network.zero_grad()
    sums = [network(*each, CrossEntropy(0.1)) for each in batches]
    smoothed = torch.stack([each.smoothed for each in sums]).sum()
    (smoothed / 20).backward()
    nll = torch.stack([each.nll for each in sums]).sum()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}  # type: ignore[union-attr]
    return [smoothed.detach(), nll], gradients


def assert_close_passes(found: Pass, expected: Pass) -> None:
    for one, two in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=0)
    for name, gradient in found[1].items():
        other = expected[1][name]
        tolerance = 1e-5 * max(1.0, other.abs().max().item())
        torch.testing.assert_close(
            gradient, other, rtol=0, atol=tolerance, msg=lambda m, n=name: n + m
        )
