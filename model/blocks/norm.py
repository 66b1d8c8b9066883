"""Layer normalisation, and RMS normalisation without a mean (Zhang & Sennrich 2019)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.blocks.linear import aligned
from model.config.layers import LayersConfig


class RMSNorm(nn.Module):
    """RMS norm x / √(mean(x²) + ε) · g over the last axis (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.width = width
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, in its shape (…, width); the mean is computed in fp32."""
        # On a CPU, torch computes the norm in several steps, two of which read x. Because of the
        # view, autograd sums the gradients of these two steps first, and then adds the gradients of
        # other uses of x. ZeRO-3 has the same effect between modules. Without the view, the order
        # of the additions, and with it the last bit, would depend on the ZeRO stage.
        return F.rms_norm(x.view_as(x), (self.width,), aligned(self.weight), self.epsilon)


class LayerNorm(nn.LayerNorm):
    """Layer norm like `torch.nn.LayerNorm`, of aligned parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, in its shape (…, width)."""
        weight, bias = aligned(self.weight), aligned(self.bias)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


def norm_of(config: LayersConfig) -> nn.Module:
    """Return a norm of the configured kind and width; RMSNorm has no bias."""
    if config.norm_kind == "rms":
        return RMSNorm(config.width, config.norm_epsilon)
    return LayerNorm(config.width, config.norm_epsilon, bias=config.bias)
