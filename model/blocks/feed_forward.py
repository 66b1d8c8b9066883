"""The position-wise feed-forward network (Vaswani et al. 2017, §3.3)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from model.blocks.linear import Linear
from model.blocks.swiglu import SwiGLU
from model.config.layers import LayersConfig

# GELU(x) ≈ x/2 · (1 + tanh z), z = √(2/π) · (x + 0.044715 x³) (Hendrycks & Gimpel 2016, §2). With
# the constants below, 2z = x · (_SLOPE + _CUBIC · x²).
_SLOPE = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _SLOPE


def gelu_tanh(x: Tensor) -> Tensor:
    """Return GELU's approximation by tanh, element by element.

    On CPUs in fp32, the formula x/2 · (1 + tanh z) is computed as x · σ(2z), which is equal. σ is
    saved for the backward pass, whereas torch computes tanh in both passes. Forward and backward of
    768 × 512 elements on one thread of an AMD EPYC with AVX2, torch 2.13.0, 2026-11-22, with an
    allocator that keeps freed memory: 3.5 ms in torch, 1.3 ms here.
    """
    if torch.compiler.is_compiling():  # the compiler fuses torch's formula
        return F.gelu(x, approximate="tanh")
    if x.device.type == "cpu" and x.dtype is torch.float32:
        y: Tensor = _GeluTanh.apply(x)
        return y
    return F.gelu(x, approximate="tanh")


class _GeluTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        sigma = x.square().mul_(_CUBIC).add_(_SLOPE).mul_(x).sigmoid_()
        ctx.save_for_backward(x, sigma)
        return x * sigma

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y_grad: Tensor) -> Tensor:
        x, sigma = ctx.saved_tensors
        # The derivative is σ · (1 + (1 - σ) · x · (slope + 3 · cubic · x²)). The code computes it
        # with few passes and few tensors.
        slope = x.square().mul_(3 * _CUBIC).add_(_SLOPE).mul_(x)
        return slope.mul_(1 - sigma).add_(1).mul_(sigma).mul_(y_grad)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "silu": F.silu,
}


class FeedForward(nn.Module):
    """FFN(x) = f(xW₁ + b₁)W₂ + b₂ at each position, with or without biases.

    The paper's f is max(0, x). GELU(x) = x · Φ(x) is from Hendrycks & Gimpel 2016, §2, as are its
    approximation gelu_tanh and SiLU(x) = x · σ(x).
    """

    def __init__(self, width: int, inner_width: int, activation: str, bias: bool) -> None:
        super().__init__()
        self.inner = Linear(width, inner_width, bias)
        self.outer = Linear(inner_width, width, bias)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x_btm: Tensor) -> Tensor:
        """Return the output (b, t, width)."""
        y: Tensor = self.outer(self.activation(self.inner(x_btm)))
        return y


def feed_forward_of(config: LayersConfig) -> FeedForward | SwiGLU:
    """Return the feed-forward network of a layer, chosen by its activation."""
    if config.activation == "swiglu":
        return SwiGLU(config.width, config.inner_width, config.bias)
    return FeedForward(config.width, config.inner_width, config.activation, config.bias)
