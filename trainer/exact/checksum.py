"""Checksums of gradients on their grids, by which a reduction over slots and ranks is verified.

On its grid an element is an integer k times g (`trainer.exact.grids`). The checksum of a parameter
is the sum of w·k over its elements modulo 2⁶⁴, with weights w that depend on an element's index
alone. It is linear: the checksums of all slots on all ranks add up to the checksum of the summed
gradient, with any algorithm, grouping or partitioning of the reduction. A reduced gradient with one
wrong element has another checksum, even if the error is smaller than the grid.

    index    0   1    2   3         63 │ 64   65
    weight   a   a·2³²  a   a·2³²  …     │ b    b·2³²  …       a, b: odd, one for 64 elements

Two elements that were exchanged are seen unless they are in the same 64 elements at an even
distance.

A local gradient is summed while it is rounded. Rounding adds C = 1.5·2²³·g, and as an integer the
bits of C + x are those of C plus k, so that 64 bits are two elements at a time.
"""

import struct
from functools import lru_cache

import torch
from torch.nn import functional as F

from trainer.exact.chunks import CHUNKS

BLOCK = 64  # number of elements with the same odd weight
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # odd; its multiples are spread over all 64 bits
_LOW_BITS = 12


@torch.no_grad()
def checksum_of_shifted(shifted: torch.Tensor, shift: float) -> torch.Tensor:
    """Return the checksum of a gradient to which a shift was added, an int64 scalar.

    Args:
        shifted: an fp32 tensor x + C of any shape, whose elements begin at index 0.
        shift: C.
    """
    flat = shifted.reshape(-1)
    whole = flat.numel() // BLOCK * BLOCK
    total = _sum_of_blocks(flat[:whole], 0, shift)
    if whole < flat.numel():
        end = F.pad(flat[whole:], (0, BLOCK - flat.numel() + whole), value=shift)
        total = total + _sum_of_blocks(end, whole // BLOCK, shift)
    return total


@torch.no_grad()
def checksum_of_part(part: torch.Tensor, start: int, shift: float) -> torch.Tensor:
    """Return the checksum of a part of a reduced gradient, an int64 scalar.

    Its elements have one or two bits too many for one shift. So each is split into a multiple of
    2¹²·g and the rest, which both have few bits. An element that is no multiple of the grid, which
    only an error can give, changes the checksum, too.

    Args:
        part: a flat fp32 tensor, whose elements are multiples of the grid below 2²⁴ times the grid.
        start: the index of its first element in the flattened parameter.
        shift: the shift C of the parameter.
    """
    high_shift = shift * 2**_LOW_BITS
    total = torch.zeros((), dtype=torch.int64, device=part.device)
    off_grid = torch.zeros_like(total)
    first, chunk = start // BLOCK * BLOCK, CHUNKS[part.device.type]
    for begin in range(first, start + part.numel(), chunk):
        piece = part[max(0, begin - start) : begin + chunk - start]
        left = max(0, start - begin)
        right = -(left + piece.numel()) % BLOCK
        if left or right:
            piece = F.pad(piece, (left, right))
        high = piece + high_shift
        total += _sum_of_blocks(high, begin // BLOCK, high_shift) * 2**_LOW_BITS
        low = high.sub_(high_shift).neg_().add_(piece)
        shifted = low + shift
        total += _sum_of_blocks(shifted, begin // BLOCK, shift)
        off_grid += torch.count_nonzero(shifted.sub_(shift).sub_(low))
    return total + off_grid * _GOLDEN


def _sum_of_blocks(shifted: torch.Tensor, first: int, shift: float) -> torch.Tensor:
    """Return the checksum of whole blocks of shifted elements, from a block's number on."""
    if shifted.storage_offset() % 2:  # torch reads 64-bit words only at multiples of 8 bytes
        shifted = shifted.clone()
    zeros = _bits(shift) * (1 + 2**32) * (BLOCK // 2)  # the sum of a block of zeros
    blocks = shifted.view(torch.int64).view(-1, BLOCK // 2).sum(1) - _wrapped(zeros)
    return (blocks * _weights(first, len(blocks), shifted.device)).sum()


def _weights(first: int, count: int, device: torch.device) -> torch.Tensor:
    size = 1 << max(10, (first + count - 1).bit_length())
    return _all_weights(size, device)[first : first + count]


@lru_cache(maxsize=64)
def _all_weights(count: int, device: torch.device) -> torch.Tensor:
    return (torch.arange(1, count + 1, dtype=torch.int64, device=device) * _GOLDEN) | 1


def _bits(value: float) -> int:
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return int(bits)


def _wrapped(value: int) -> int:
    """Return an integer modulo 2⁶⁴ as a signed number."""
    return (value + 2**63) % 2**64 - 2**63
