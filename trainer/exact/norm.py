"""Exact sum of squares of a vector whose pieces are on several ranks.

Squares of fp32 numbers are exact in fp64. Each square is rounded to a multiple of u = B²·2⁻⁴¹,
where B bounds the elements, so it is an integer of at most 41 bits in units of u. Sums of 4,096
such squares are exact in fp64, and these sums are added as Python's integers. The result depends
neither on the order nor on the partitioning of the vector. Elements below B·2⁻²¹ are rounded to
zero.
"""

from collections.abc import Iterable, Iterator

import torch

from trainer.exact.chunks import CHUNKS
from trainer.process.distributed import sum_of_integers_over_ranks
from trainer.process.placement import Placement

ROW = 4096  # number of elements whose squares are added in fp64
_BITS = 41  # bits per square; a sum of 4,096 = 2¹² squares has 53 bits, which fp64 holds
_SMALL = 16 * ROW  # pieces of fewer elements are joined, because each operation has its overhead


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
    total = sum_of_integers_over_ranks(squares_in_units(pieces, unit), placement)
    return float((total * unit) ** 0.5)


@torch.no_grad()
def squares_in_units(pieces: Iterable[torch.Tensor], unit: float) -> int:
    """Return the sum of the squares of fp32 tensors, each rounded to a multiple of `unit`.

    The host waits for the device only once, at the end.
    """
    shift = 1.5 * 2**52 * unit  # adding and subtracting the shift rounds to a multiple of `unit`
    memory: torch.Tensor | None = None
    sums = []
    for chunk in _chunks(pieces):
        if memory is None:
            memory = chunk.new_empty(CHUNKS[chunk.device.type], dtype=torch.float64)
        squares = memory[: chunk.numel()].copy_(chunk)
        squares.mul_(squares).add_(shift).sub_(shift)
        whole = squares.numel() // ROW * ROW
        sums.append(squares[:whole].view(-1, ROW).sum(1))
        if whole < squares.numel():
            sums.append(squares[whole:].sum(0, keepdim=True))
    if not sums:
        return 0
    integers = torch.cat(sums).div_(unit).long()  # up to 53 bits each, so a sum can overflow
    high, low = torch.stack([integers >> 32, integers & 0xFFFFFFFF]).sum(1).tolist()
    return int(high << 32) + int(low)


def _chunks(pieces: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    small = []
    for piece in pieces:
        if piece.numel() < _SMALL:
            small.append(piece.flatten())
        else:
            yield from piece.flatten().split(CHUNKS[piece.device.type])
    if small:
        joined = torch.cat(small)
        yield from joined.split(CHUNKS[joined.device.type])
