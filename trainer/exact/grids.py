"""Grids on which gradients are added without rounding.

A sum of fp32 numbers depends on its order because partial sums are rounded. Suppose that all terms
are multiples of a power of two g, and that no partial sum reaches 2²⁴·g. Then every partial sum is
a multiple of g with at most 24 significant bits, which fp32 represents exactly. So nothing is
rounded, and the sum is the same in any order and grouping, hence for any number of ranks, any ZeRO
stage and any reduction algorithm.

Each parameter has a separate grid. Let M be the number of micro-batches per step, and let the
*limit* L be a power of two with L ≥ |gradient|. Then g = L·2^⌈log₂ M⌉ / 2²⁴ keeps every partial sum
of a step below M·L ≤ 2²⁴·g. The limit follows from the largest gradients of earlier steps, with a
margin above them. These largest gradients are taken over all slots, so the grids do not depend on
the ranks. They are stored in checkpoints. All ranks detect a gradient above its limit in the same
exchange: they raise the limits and repeat the step from its first micro-batch.

Adding and subtracting C = 1.5·2²³·g rounds to the nearest multiple of g: C + x is between 2²³·g and
2²⁴·g, where the distance of fp32 numbers is g (Dekker 1971; Knuth, TAOCP 2, §4.2.2). That needs |x|
≤ 2²²·g, so the formula for g uses at least M = 4.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from trainer.errors import EngineError

HEADROOM = 2  # a gradient's limit is at least 2**HEADROOM times the largest recent gradient
DECAY = 0.98  # factor per step on the largest recent gradient; about 0.5 after 34 steps
MIN_BITS = 12  # minimum number of bits that a gradient as large as its limit keeps
SMALLEST_LIMIT_EXPONENT = -100  # keeps the spacing of the grid a normal fp32 number
LARGEST = 2.0**96  # larger gradients are treated as not finite, because their sums could overflow


class GradientGrids:
    """Grids of a model's parameters, equal on all ranks and for any number of ranks."""

    def __init__(self, parameters: Sequence[str], micro_batches_per_step: int) -> None:
        """Create grids without limits: no gradient is rounded, and the first step is repeated.

        Args:
            parameters: the names of the parameters.
            micro_batches_per_step: the number of gradients that are summed in a step.

        Raises:
            EngineError: with this number of micro-batches, too few bits remain for each gradient.
        """
        self._parameters = list(parameters)
        self._micro_batches = micro_batches_per_step
        self._bits = 24 - max(2, (micro_batches_per_step - 1).bit_length())
        if self._bits < MIN_BITS:
            most = 2 ** (24 - MIN_BITS)
            raise EngineError(
                f"batching.micro_batches_per_step is {micro_batches_per_step} and engine.numerics "
                f"is exact, so only {self._bits} bits remain for each gradient, but at least "
                f"{MIN_BITS} are needed. Use at most {most} micro-batches with more tokens each, "
                "or set engine.numerics to fast"
            )
        self._peaks: np.ndarray | None = None
        self._peaks_before: np.ndarray | None = None  # peaks after the last applied step
        self._limits = np.zeros(len(parameters))
        self._shifts: list[float] | None = None
        # Called with parameters and their shifted fp32 gradients, see `trainer.exact.checksum`.
        self.observe: Callable[[Sequence[int], list[torch.Tensor]], None] | None = None

    @property
    def shifts(self) -> list[float] | None:
        """Shift C of each parameter; None if gradients are not rounded."""
        return self._shifts

    @property
    def peaks(self) -> dict[str, float]:
        """Largest recent magnitude of each parameter's gradient, sufficient for `restore`."""
        if self._peaks is None:
            return {}
        return dict(zip(self._parameters, self._peaks.tolist(), strict=True))

    def restore(self, peaks: Mapping[str, float]) -> None:
        """Restore the grids from the peaks in a checkpoint."""
        if peaks:
            self._set(np.array([peaks[name] for name in self._parameters]))
            self._peaks_before = self._peaks

    def round_(self, indices: Sequence[int], gradients: list[torch.Tensor]) -> None:
        """Round gradients to the grids of their parameters, in place.

        A gradient in lower precision than fp32 can also hold the result exactly, because rounding
        adds no digits.

        Args:
            indices: the numbers of the parameters.
            gradients: their gradients in a slot, of any shape and the same precision.
        """
        if self._shifts is None:
            return
        shifts = [self._shifts[index] for index in indices]
        is_fp32 = gradients[0].dtype == torch.float32
        shifted = gradients if is_fp32 else as_fp32(gradients)
        torch._foreach_add_(shifted, shifts)
        if self.observe:
            self.observe(indices, shifted)
        torch._foreach_sub_(shifted, shifts)
        if not is_fp32:
            torch._foreach_copy_([gradient.view(-1) for gradient in gradients], shifted)

    def fits(self, amax: np.ndarray) -> bool:
        """Return whether a step's gradients were within the limits.

        Args:
            amax: [slots, parameters], the largest absolute values before rounding.
        """
        return self._shifts is not None and bool((amax.max(axis=0) <= self._limits).all())

    def widen(self, amax: np.ndarray) -> list[str]:
        """Raise the limits to hold these gradients.

        Args:
            amax: [slots, parameters], the largest absolute values before rounding.

        Returns:
            The parameters whose limits were too low; empty if there were no limits before.
        """
        top = amax.max(axis=0)
        if self._peaks is None:
            self._set(top)
            return []
        outgrown = np.flatnonzero(top > self._limits)
        self._set(np.maximum(self._peaks, top))
        return [self._parameters[index] for index in outgrown]

    def follow(self, amax: np.ndarray) -> None:
        """Update the limits for the next step, based on the gradients of this step.

        Args:
            amax: [slots, parameters], the largest absolute values before rounding.
        """
        assert self._peaks is not None
        self._set(np.maximum(self._peaks * DECAY, amax.max(axis=0)))
        self._peaks_before = self._peaks

    def revert(self) -> None:
        """Restore the limits from before the step, because the step is not applied.

        Limits that were widened for the gradients of a skipped step would make the sums of the
        following steps coarser. The peaks decay by only half in 34 steps.
        """
        if self._peaks_before is not None:
            self._set(self._peaks_before)
            return
        self._peaks, self._shifts = None, None
        self._limits = np.zeros(len(self._parameters))

    def bound(self, amax: np.ndarray) -> float:
        """Return a power of two above every absolute value in the step's summed gradient.

        Args:
            amax: [slots, parameters], the largest absolute values before rounding.
        """
        total = np.add.accumulate(amax, axis=0)[-1].max()  # sum in slot order
        spacing = self._limits.max() * 2.0**-self._bits
        return _power_of_two_above(float(total + self._micro_batches * spacing))

    def _set(self, peaks: np.ndarray) -> None:
        self._peaks = peaks
        exponents = np.frexp(peaks)[1]  # exponents of powers of two above the peaks
        exponents = np.where(peaks > 0, exponents + HEADROOM, SMALLEST_LIMIT_EXPONENT)
        exponents = np.maximum(exponents, SMALLEST_LIMIT_EXPONENT)
        self._limits = np.ldexp(1.0, exponents)
        self._shifts = np.ldexp(1.5 * 2**23, exponents - self._bits).tolist()


def as_fp32(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return flat copies in fp32, which are parts of one vector."""
    sizes = [gradient.numel() for gradient in gradients]
    vector = torch.empty(sum(sizes), dtype=torch.float32, device=gradients[0].device)
    copies = list(vector.split(sizes))
    torch._foreach_copy_(copies, [gradient.view(-1) for gradient in gradients])
    return copies


def largest_magnitudes(gradients: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Return the largest absolute value of each tensor as a scalar, NaN if any element is NaN."""
    if not gradients[0].is_cpu:
        return magnitudes_by_kernels(gradients)
    return [_largest_magnitude(gradient) for gradient in gradients]


def magnitudes_by_kernels(gradients: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Return the same values as `largest_magnitudes`, computed with few kernels."""
    if len(gradients) == 1:  # a list operation would take three kernels
        return [torch.linalg.vector_norm(gradients[0], math.inf)]
    return torch._foreach_norm(gradients, math.inf)


def _largest_magnitude(gradient: torch.Tensor) -> torch.Tensor:
    if gradient.dtype == torch.float32:
        lowest, highest = gradient.amin(), gradient.amax()
    else:  # one pass is faster for low precision, but slower for fp32
        lowest, highest = torch.aminmax(gradient)
    return torch.maximum(highest, -lowest)


def _power_of_two_above(value: float) -> float:
    return math.ldexp(1.0, math.frexp(value)[1])
