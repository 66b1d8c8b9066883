"""Gradients of two ways to compute a loss, held to each other."""

from collections.abc import Sequence

import torch
from torch import Tensor


def assert_same_gradients(
    ours: Tensor, theirs: Tensor, tensors: Sequence[Tensor], *, rtol: float, atol: float
) -> None:
    """Of both losses by these tensors, whose dtype ours have."""
    gradients, expected = (torch.autograd.grad(loss, tensors) for loss in (ours, theirs))
    for found, wanted, tensor in zip(gradients, expected, tensors, strict=True):
        assert found.dtype == tensor.dtype
        torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol)
