"""Checksums of gradients on their grids, by which a reduction over slots and ranks is verified.

On its grid an element is an integer k times g (`trainer.exact.grids`). The checksum of a parameter
is the sum of w·k over its elements modulo 2⁶⁴, with weights w that depend on an element's index
alone. It is linear: the checksums of all slots on all ranks add up to the checksum of the summed
gradient, with any algorithm, grouping or partitioning of the reduction. A reduced gradient with one
wrong element has a different checksum, even if the error is smaller than the grid.

    index    0   1    2   3         63 │ 64   65
    weight   a   a·2³²  a   a·2³²  …     │ b    b·2³²  …       a, b: odd, one for 64 elements

An exchange of two elements is detected unless both are in the same block of 64 elements, at an even
distance.

A local gradient is summed while it is rounded. Rounding adds C = 1.5·2²³·g, and as an integer the
bits of C + x are those of C plus k, so that 64 bits are two elements at a time. The bits of C are
subtracted on the host.

On a GPU, each operation starts a kernel. So the parts of many parameters are copied to one vector,
in which each begins at the start of a block, and one operation sums the blocks of all:

    parts ──▶ │ 0 0 x x … │ x x … x │ x 0 … 0 │ y y y 0 … │ ──▶ a sum per block, times its weight
                block 3 of x, 4, 5              block 0 of y    ──▶ added up by parameter
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from trainer.exact.chunks import CHUNKS

BLOCK = 64  # number of elements with the same odd weight
_GOLDEN = 0x9E3779B97F4A7C15  # odd; its multiples are spread over all 64 bits
_LOW_BITS = 12


class GradientPart(NamedTuple):
    """Part of a parameter's gradient.

    Attributes:
        parameter: the number of the parameter.
        start: the index of the part's first element in the flattened parameter.
        values: a flat fp32 tensor.
    """

    parameter: int
    start: int
    values: torch.Tensor


class Checksums:
    """Running checksums of all parameters; gradients are added in parts."""

    def __init__(self, parameters: int, device: torch.device) -> None:
        """Start at zero for this number of parameters."""
        self._sums = torch.zeros(parameters, dtype=torch.int64, device=device)
        self._of_shifts = np.zeros(parameters, dtype=np.uint64)  # bits of the shifts, to subtract

    def clear(self) -> None:
        """Start again at zero."""
        self._sums.zero_()
        self._of_shifts[:] = 0

    @torch.no_grad()
    def add_shifted(self, parts: Iterable[GradientPart], shifts: Sequence[float]) -> None:
        """Add gradients whose elements have been shifted by C.

        Args:
            parts: tensors x + C.
            shifts: C of each parameter.
        """
        for layout, vector in _vectors(parts):
            blocks = _sums_of_blocks(vector).mul_(layout.weights)
            self._sums.index_add_(0, layout.owners, blocks)
            self._count_shifts(layout, layout.of(shifts), 1)

    @torch.no_grad()
    def add_sums(self, parts: Iterable[GradientPart], shifts: Sequence[float]) -> None:
        """Add reduced gradients.

        Their elements have one or two bits too many for one shift. So each element is split into a
        multiple of 2¹²·g and a remainder, which both have few bits. An element off the grid, which
        only an error can cause, changes the checksum, too.

        Args:
            parts: tensors whose elements are multiples of the grid below 2²⁴ times the grid.
            shifts: the shift C of each parameter.
        """
        for layout, vector in _vectors(parts):
            low_shifts = layout.of(shifts)
            high_shifts = [shift * 2**_LOW_BITS for shift in low_shifts]
            shifted = vector.clone()
            views = layout.views(shifted)
            torch._foreach_add_(views, high_shifts)
            high_blocks = _sums_of_blocks(shifted)
            torch._foreach_sub_(views, high_shifts)
            low = vector.sub_(shifted)
            shifted.copy_(low)
            torch._foreach_add_(views, low_shifts)
            blocks = _sums_of_blocks(shifted).add_(high_blocks, alpha=2**_LOW_BITS)
            torch._foreach_sub_(views, low_shifts)
            off_grid = shifted.ne_(low).view(-1, BLOCK).sum(1, dtype=torch.int64)
            weighted = blocks.mul_(layout.weights).add_(off_grid, alpha=_signed(_GOLDEN))
            self._sums.index_add_(0, layout.owners, weighted)
            self._count_shifts(layout, high_shifts, 2**_LOW_BITS)
            self._count_shifts(layout, low_shifts, 1)

    def _count_shifts(self, layout: "_Layout", shifts: Sequence[float], factor: int) -> None:
        bits = np.array(shifts, dtype=np.float32).view(np.uint32).astype(np.uint64)
        np.add.at(self._of_shifts, layout.indices, bits * layout.ones * np.uint64(factor))

    def values(self) -> list[int]:
        """Return the checksums modulo 2⁶⁴; the host waits for the device."""
        return [
            _signed(total - of_shifts)
            for total, of_shifts in zip(self._sums.tolist(), self._of_shifts.tolist(), strict=True)
        ]


class _Layout(NamedTuple):
    """Places of parts in a vector.

    Attributes:
        indices: the parameter of each part.
        places: start and end of each part in the vector.
        weights: int64 [blocks], the weight of each block.
        owners: int64 [blocks], the parameter of each block.
        ones: uint64 [parts], the checksum of a part whose elements are all 1.
    """

    indices: np.ndarray
    places: tuple[tuple[int, int], ...]
    weights: torch.Tensor
    owners: torch.Tensor
    ones: np.ndarray

    def of(self, shifts: Sequence[float]) -> list[float]:
        """Return the shift of each part."""
        return [shifts[index] for index in self.indices]

    def views(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """Return the parts of a vector."""
        return [vector[start:end] for start, end in self.places]


@lru_cache(maxsize=4096)
def _layout(spans: tuple[tuple[int, int, int], ...], device: torch.device) -> _Layout:
    """Return the layout of parts with these parameters, starts and lengths."""
    blocks = 0
    places, weights, owners, ones = [], [], [], []
    for index, start, length in spans:
        first, last = start // BLOCK, -(-(start + length) // BLOCK)
        begin = blocks * BLOCK + start % BLOCK
        places.append((begin, begin + length))
        blocks += last - first
        of_blocks = np.arange(first + 1, last + 1, dtype=np.uint64) * np.uint64(_GOLDEN) | 1
        weights.append(of_blocks)
        owners.append(np.full(last - first, index))
        is_inside = np.zeros((last - first) * BLOCK, dtype=np.uint64)
        is_inside[start % BLOCK : start % BLOCK + length] = 1
        even, odd = is_inside.reshape(-1, BLOCK // 2, 2).sum(axis=1).T
        ones.append(((even + (odd << np.uint64(32))) * of_blocks).sum())
    return _Layout(
        indices=np.array([index for index, _, _ in spans]),
        places=tuple(places),
        weights=torch.from_numpy(np.concatenate(weights).view(np.int64)).to(device),
        owners=torch.from_numpy(np.concatenate(owners)).to(device),
        ones=np.array(ones),
    )


def _vectors(parts: Iterable[GradientPart]) -> Iterator[tuple[_Layout, torch.Tensor]]:
    """Yield vectors that contain the parts, and zeros around them, with their layouts."""
    for pieces in _grouped(parts):
        spans = tuple((piece.parameter, piece.start, piece.values.numel()) for piece in pieces)
        layout = _layout(spans, pieces[0].values.device)
        vector = pieces[0].values.new_zeros(len(layout.weights) * BLOCK)
        torch._foreach_copy_(layout.views(vector), [piece.values for piece in pieces])
        yield layout, vector


def _grouped(parts: Iterable[GradientPart]) -> Iterator[list[GradientPart]]:
    """Split long parts at the ends of blocks, and join short ones."""
    pieces: list[GradientPart] = []
    size = 0
    for parameter, start, values in parts:
        chunk = CHUNKS[values.device.type]
        end = start + values.numel()
        for begin in range(start - start % BLOCK, end, chunk):
            piece = values[max(0, begin - start) : begin + chunk - start]
            if size + piece.numel() > chunk and pieces:
                yield pieces
                pieces, size = [], 0
            pieces.append(GradientPart(parameter, max(start, begin), piece))
            size += piece.numel()
    if pieces:
        yield pieces


def _sums_of_blocks(vector: torch.Tensor) -> torch.Tensor:
    """Return the sum of each block, whose pairs of elements are read as int64 numbers."""
    return vector.view(torch.int64).view(-1, BLOCK // 2).sum(1)


def _signed(value: int) -> int:
    """Return an integer modulo 2⁶⁴ as a signed number."""
    return (value + 2**63) % 2**64 - 2**63
