"""Exact sum of squares of a vector whose pieces are on several ranks.

Squares of fp32 numbers are exact in fp64. Each square is rounded to a multiple of u = B²·2⁻⁴¹,
where B bounds the elements, so it is an integer of at most 41 bits in units of u. Sums of 4,096
such squares are exact in fp64, and these sums are added as Python's integers. The result depends
neither on the order nor on the partitioning of the vector. Elements below B·2⁻²¹ are rounded to
zero.
"""

from collections.abc import Iterable

import torch

from trainer.process.distributed import sum_of_integers_over_ranks
from trainer.process.placement import Placement

ROW = 4096  # number of elements whose squares are added in fp64
_BITS = 41  # bits per square; a sum of 4,096 = 2¹² squares has 53 bits, which fp64 holds
_CHUNK = 16 * ROW  # number of elements whose squares are in the cache at the same time


def norm(pieces: Iterable[torch.Tensor], bound: float, placement: Placement) -> float:
    """Return the norm of a partitioned fp32 vector, equal on all ranks; a collective.

    Args:
        pieces: the pieces of the vector on this rank.
        bound: a power of two, no less than any element's absolute value.
        placement: this rank and the number of ranks.
    """
    if bound == 0.0:
        return 0.0
    unit = bound * bound * 2.0**-_BITS
    total = sum(squares_in_units(piece, unit) for piece in pieces)
    total = sum_of_integers_over_ranks(total, placement)
    return float((total * unit) ** 0.5)


@torch.no_grad()
def squares_in_units(piece: torch.Tensor, unit: float) -> int:
    """Return the sum of the squares of an fp32 tensor, each rounded to a multiple of `unit`."""
    shift = 1.5 * 2**52 * unit  # adding and subtracting the shift rounds to a multiple of `unit`
    total = 0
    for chunk in piece.flatten().split(_CHUNK):
        squares = chunk.double()
        squares.mul_(squares).add_(shift).sub_(shift)
        whole = squares.numel() // ROW * ROW
        sums = [*squares[:whole].view(-1, ROW).sum(1).tolist(), float(squares[whole:].sum())]
        total += sum(int(row / unit) for row in sums)
    return total
