"""The weights of frozen parameters, which ZeRO computes with and never updates.

    network ──freeze──▶ no gradient reaches them, no optimizer holds them
    fp32 weights ──each rank's share, on the host──▶ checkpoints, averages

What forward reads may be rounded to bf16. So that a checkpoint holds the very bits that a run began
with, each rank keeps the fp32 weights of a share of each frozen parameter.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from math import prod

import torch
from torch import nn

from foundation.wording import counted
from trainer.rank.placement import Placement
from trainer.tasks.frozen import frozen_names
from trainer.zero.fragment import MASTER, Fragment, FragmentReader
from trainer.zero.stages import Stage


def freeze(network: nn.Module, patterns: Sequence[str]) -> nn.Module:
    """The network, whose parameters of these names have no gradients from now on.

    Raises:
        EngineError: a pattern matches nothing, or all parameters are frozen.
    """
    parameters = dict(network.named_parameters())
    for name in frozen_names(parameters, patterns):
        parameters[name].requires_grad_(False)
    return network


class FrozenWeights:
    """This rank's share of the fp32 weights of each frozen parameter."""

    def __init__(self, network: nn.Module, placement: Placement) -> None:
        """
        Args:
            network: with its initial weights, in fp32.
        """
        rank, world_size = placement.rank, placement.world_size
        self._shares: dict[str, tuple[int, torch.Tensor]] = {}
        for name, parameter in network.named_parameters():
            if not parameter.requires_grad:
                flat = parameter.detach().view(-1)
                start, stop = (len(flat) * r // world_size for r in (rank, rank + 1))
                self._shares[name] = start, flat[start:stop].to("cpu", torch.float32, copy=True)

    def __contains__(self, parameter: object) -> bool:
        return parameter in self._shares

    @property
    def names(self) -> list[str]:
        """The frozen parameters, in the network's order."""
        return list(self._shares)

    def summary_text(self, shapes: Mapping[str, Sequence[int]]) -> str:
        """How many are frozen, for the first lines of a run.

        Args:
            shapes: of all parameters of the network, by name.
        """
        weights = sum(map(prod, shapes.values()))
        frozen = sum(prod(shapes[name]) for name in self._shares)
        return (
            f"{len(self._shares)} of {counted(len(shapes), 'parameter')} are frozen, {frozen:,} of "
            f"{counted(weights, 'weight')}"
        )

    def fragments(self) -> Iterator[Fragment]:
        """This rank's share as views; over all ranks, each element once."""
        for name, (start, share) in self._shares.items():
            if share.numel():
                yield Fragment(MASTER, name, start, share)

    def load(
        self,
        module: nn.Module,
        shapes: Mapping[str, Sequence[int]],
        stage: Stage,
        read: FragmentReader,
        fresh: Container[str],
    ) -> None:
        """Give the network the weights of a checkpoint, whole on every rank; a collective.

        Args:
            module: the network under ZeRO.
            shapes: of all parameters, by name.
            fresh: see `trainer.zero.fragments.load_state`.
        """
        for name, parameter in module.named_parameters():
            if name in self._shares and name not in fresh:
                shape = shapes[name]
                weights = read(MASTER, name, 0, prod(shape)).view(shape)
                stage.set_frozen(parameter, weights)
