"""A learned vector per position (Gehring et al. 2017, §3.1; Radford et al. 2018, §3.1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LearnedPositions(nn.Module):
    """Learned vectors of positions 0…context_length-1; higher positions are not supported."""

    def __init__(self, context_length: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(context_length, width))

    def forward(self, position: Tensor) -> Tensor:
        """Convert positions (…) into vectors (…, width)."""
        return F.embedding(position, self.weight)
