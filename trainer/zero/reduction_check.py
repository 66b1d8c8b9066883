"""Check that a step's summed gradients are the sums of all slots' gradients.

    each rounded gradient of this rank ──checksum──▶ added up over its slots  ─┐
    this rank's parts of the sums ─────checksum──▶ added up over its parts   ──┴─▶ one number,
        which is 0 modulo 2⁶⁴ in the sum over all ranks

A network, a switch or a reduction that changes an element changes the number
(`trainer.exact.checksum`). The parameters that are wrong are found by a second exchange.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn

from trainer.exact.checksum import Checksums, GradientPart
from trainer.exact.grids import GradientGrids
from trainer.process.distributed import sum_of_integers_over_ranks
from trainer.process.placement import Placement

_MODULUS = 2**64
_FACTOR = 0xD6E8FEB86659FD93  # odd; its powers are the weights of parameters and of ranks


class ReductionCheck:
    """Checksums of one rank."""

    def __init__(
        self, grids: GradientGrids, indices: Mapping[nn.Parameter, int], placement: Placement
    ) -> None:
        """Observe all gradients that are rounded to their grids.

        Args:
            grids: the grids of the trained parameters.
            indices: the index of each trained parameter.
            placement: this rank and the number of ranks.
        """
        self._grids = grids
        self._indices = indices
        self._placement = placement
        self._local = Checksums(len(indices), placement.torch_device)
        self._reduced = Checksums(len(indices), placement.torch_device)
        grids.observe = self._add

    def restart(self) -> None:
        """Forget the gradients of the step, which were applied or discarded."""
        self._local.clear()

    def wrong_parameters(
        self, parts: Iterable[tuple[nn.Parameter, int, torch.Tensor]], *, replicated: bool
    ) -> list[int]:
        """Return the indices of the parameters whose sums are wrong; a collective.

        Call it after all slots of a step were summed, before its gradients are applied. All
        gradients must be finite and within the limits of their grids.

        Args:
            parts: `Stage.owned_parts`.
            replicated: `Stage.replicated`.
        """
        owned = (GradientPart(self._indices[each], start, view) for each, start, view in parts)
        self._reduced.clear()
        self._reduced.add_sums(owned, self._shifts)
        differences = list(self._differences(replicated))
        folded = sum(n * pow(_FACTOR, i, _MODULUS) for i, n in enumerate(differences, start=1))
        if not self._over_ranks(folded):
            return []
        return [index for index, n in enumerate(differences) if self._over_ranks(n)]

    def _differences(self, replicated: bool) -> Iterator[int]:
        """Yield numbers that are 0 modulo 2⁶⁴ in the sum over all ranks, one for each parameter.

        If each rank has all sums, the sums of each rank get a different weight, so that errors of
        two ranks do not cancel out.
        """
        ranks = range(self._placement.world_size)
        weights = [pow(_FACTOR, rank, _MODULUS) if replicated else 1 for rank in ranks]
        slots_weight = sum(weights) if replicated else 1
        own_weight = weights[self._placement.rank]
        for local, total in zip(self._local.values(), self._reduced.values(), strict=True):
            yield slots_weight * local - own_weight * total

    def _over_ranks(self, number: int) -> int:
        return sum_of_integers_over_ranks(number % _MODULUS, self._placement) % _MODULUS

    def _add(self, indices: Sequence[int], shifted: list[torch.Tensor]) -> None:
        parts = map(GradientPart, indices, itertools.repeat(0), [each.view(-1) for each in shifted])
        self._local.add_shifted(parts, self._shifts)

    @property
    def _shifts(self) -> list[float]:
        shifts = self._grids.shifts
        assert shifts is not None
        return shifts
