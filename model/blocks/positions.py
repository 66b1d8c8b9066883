"""Sinusoidal positions (Vaswani et al. 2017, §3.5)."""

import math

import torch
from torch import Tensor, nn

FIRST_ROWS = 256


def angles_per_position(width: int) -> Tensor:
    """Return 1 / 10000^(2i / width) for each pair i of columns, (width / 2,), in fp32."""
    even = torch.arange(0, width, 2, dtype=torch.float32)
    return torch.exp(even * (-math.log(10000.0) / width))


def sinusoidal_table(rows: int, width: int) -> Tensor:
    """Return the vectors of positions 0…rows-1, (rows, width) in fp32.

    PE(p, 2i) = sin(p / 10000^(2i / width)), PE(p, 2i + 1) = cos(p / 10000^(2i / width)).
    """
    position = torch.arange(rows, dtype=torch.float32).unsqueeze(1)
    angle = position * angles_per_position(width)
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


class SinusoidalPositions(nn.Module):
    """Table of position vectors, which grows on demand and is not in the state dict."""

    table: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("table", sinusoidal_table(FIRST_ROWS, width), persistent=False)

    def forward(self, start: int, stop: int) -> Tensor:
        """Return the vectors of positions start…stop-1, (stop - start, width)."""
        if stop > len(self.table):
            rows = 2 ** math.ceil(math.log2(stop))
            with torch.inference_mode(False):  # so that training can reuse validation's tables
                self.table = sinusoidal_table(rows, self.width).to(self.table)
        return self.table[start:stop]
