"""Dropout (Srivastava et al. 2014) with random bits that are cheap on a CPU.

Torch draws a Bernoulli number per element. On a CPU, this takes more time than everything else that
a small layer does between two matrix products. Here, each random 64-bit number serves four elements
with 16 bits each. So the requested share of zeros is rounded to a multiple of 2⁻¹⁶. Kept elements
are divided by the share that is kept after this rounding, so the expectation is exact.

Measured with one thread of an AMD EPYC, torch 2.13.0, 2026-11-20, forward and backward of 1024 ×
256 elements: fp32 2.7 ms by torch, 0.8 ms here; bf16 2.7 ms by torch, 0.9 ms here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 2**16
_PER_DRAW = 4  # number of 16-bit numbers in a 64-bit number


def dropout(x: Tensor, share: float) -> Tensor:
    """Set this share of x to zero on average, and scale the rest so that the expectation is x.

    The random numbers come from torch's default generator for x's device: seed the generator first.
    """
    assert 0 <= share < 1
    if x.device.type != "cpu":
        return F.dropout(x, share)  # torch's kernel is fused on other devices
    zeros = round(share * LEVELS)
    if zeros == 0:
        return x
    draws = _draws(-(-x.numel() // _PER_DRAW))
    bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
    scale = torch.empty(x.shape, dtype=x.dtype)
    torch.ge(bits, zeros - LEVELS // 2, out=scale)  # 1 if kept; booleans take twice as long
    return x * scale.mul_(LEVELS / (LEVELS - zeros))


def _draws(count: int) -> Tensor:
    """Return random 64-bit numbers (count,)."""
    int64 = torch.iinfo(torch.int64)
    if torch.compiler.is_compiling():
        # The compiler cannot trace `random_`. `randint` draws the same bits, except for one of 2⁶⁴
        # numbers. It adds its lower bound, so the highest bit is flipped back.
        return torch.randint(int64.min, int64.max, (count,)) ^ int64.min
    # The full range makes all bits random.
    return torch.empty(count, dtype=torch.int64).random_(int64.min, None)


class Dropout(nn.Module):
    """`dropout` in training mode, the identity otherwise."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Return x with some elements set to zero."""
        return dropout(x, self.share) if self.training else x
