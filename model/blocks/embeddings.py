"""Token embeddings (Vaswani et al. 2017, §3.4)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Embedding(nn.Module):
    """Learned vector per token, multiplied by √width if `scaled`.

    The matrix `weight`, (vocabulary size, width), may be shared by source, target and output.
    """

    def __init__(self, vocabulary_size: int, width: int, scaled: bool = True) -> None:
        """Create the matrix, uninitialised.

        Args:
            scaled: True to multiply vectors by √width, as in the paper.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary_size, width))
        self.scale = math.sqrt(width) if scaled else 1.0

    def forward(self, ids: Tensor) -> Tensor:
        """Convert ids (b, t) into vectors (b, t, width)."""
        return F.embedding(ids, self.weight) * self.scale
