"""Layer normalisation and its form without a mean (Zhang & Sennrich 2019)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config.decoder_only import DecoderOnlyConfig


class RMSNorm(nn.Module):
    """x / √(mean(x²) + ε) · g, over the last axis (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.width = width
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Turns (…, width) into the same shape; the mean is taken in fp32."""
        # On a CPU torch computes this in several steps, of which two read x. The view collects
        # their gradients before they are added to others of x, as ZeRO-3 does between modules:
        # otherwise the order of the additions, and with it the last bit, would depend on the stage.
        return F.rms_norm(x.view_as(x), (self.width,), self.weight, self.epsilon)


def norm_named(
    kind: Literal["layer", "rms"], width: int, epsilon: float, bias: bool = True
) -> nn.Module:
    """Returns a norm of this kind; RMSNorm has no bias."""
    if kind == "rms":
        return RMSNorm(width, epsilon)
    return nn.LayerNorm(width, epsilon, bias=bias)


def norm_of(config: DecoderOnlyConfig) -> nn.Module:
    """Returns a norm as wide as the network."""
    return norm_named(config.norm, config.width, config.norm_epsilon, config.bias)
