"""Weights with which no error of a network remains unnoticed."""

import torch
from torch import nn


def make_weights_large(network: nn.Module, spread: float, moved: float = 0.3) -> nn.Module:
    """Multiply all matrices, and move biases and norms away from 0 and 1; return the network."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(moved * torch.randn_like(parameter))
            else:
                parameter.mul_(spread)
    return network
