"""Rotary positions (Su et al. 2021): queries and keys are rotated by angles from their positions.

The dot product of a query at position p and a key at position q depends only on p - q. The elements
of a head are rotated in pairs, pair i by the angle p · base^(-2i / d). Here and in Hugging Face's
Llama, pair i consists of elements i and i + d/2. In the paper, it consists of 2i and 2i + 1
(§3.4.2). Trained weights depend on this convention.

Shape suffixes: b batch, t length, h heads, d width of one head, p positions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIRST_ROWS = 256


class Rotation(NamedTuple):
    """Cosines and sines of the angles of some positions, both fp32 (…, t, 1, d/2).

    Both broadcast to heads (b, t, h, d/2).
    """

    cosines: Tensor
    sines: Tensor


def rotary_table(rows: int, head_width: int, base: float, device: torch.device) -> Tensor:
    """Return the angles of positions 0…rows-1, (rows, head_width / 2) in fp32."""
    # Compute the powers in fp32 and in this order, like the libraries with which weights are
    # exchanged.
    even_d = torch.arange(0, head_width, 2, dtype=torch.float32, device=device)
    position_p = torch.arange(rows, dtype=torch.float32, device=device)
    return position_p.unsqueeze(1) * (1.0 / base ** (even_d / head_width))


def rotate(heads_bthd: Tensor, rotation: Rotation) -> Tensor:
    """Rotate queries or keys (b, t, h, d) in fp32, and return them in the dtype of the input."""
    first, second = heads_bthd.chunk(2, dim=-1)
    cosines, sines = rotation
    rotated = [first * cosines - second * sines, second * cosines + first * sines]
    return torch.cat(rotated, dim=-1).to(heads_bthd.dtype)


class RotaryPositions(nn.Module):
    """Table of rotations, which grows on demand and is not in the state dict.

    The table is not a buffer, because casting the network to bf16 would cast a buffer as well, and
    bf16 cannot distinguish positions 256 and 257.
    """

    def __init__(self, head_width: int, base: float) -> None:
        super().__init__()
        self.head_width = head_width
        self.base = base
        self._table: Rotation | None = None

    def forward(self, position: Tensor, longest: int) -> Rotation:
        """Return the rotations of positions (…, t).

        Args:
            longest: exclusive upper bound of all positions, as a number on the host.
        """
        table = self._rows(longest, position.device)
        return Rotation(*(F.embedding(position, rows_pd).unsqueeze(-2) for rows_pd in table))

    def _rows(self, longest: int, device: torch.device) -> Rotation:
        table = self._table
        if table is None or len(table.cosines) < longest or table.cosines.device != device:
            rows = 2 ** math.ceil(math.log2(max(longest, FIRST_ROWS)))
            with torch.inference_mode(False):  # so that training can reuse validation's tables
                angles_pd = rotary_table(rows, self.head_width, self.base, device)
                table = self._table = Rotation(angles_pd.cos(), angles_pd.sin())
        return table
