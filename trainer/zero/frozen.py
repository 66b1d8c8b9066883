"""Weights of frozen parameters, which forward passes read and no optimizer updates.

    network ──freeze──▶ parameters without gradients, which no optimizer holds
    fp32 weights ──each rank's share, on the host──▶ checkpoints, averages

The weights that forward reads may be rounded to bf16, but checkpoints need the exact initial
weights. So each rank also stores a share of each frozen parameter in fp32.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from math import prod

import torch
from torch import nn

from foundation.wording import counted
from run_store.checkpoints.fragment import MASTER, Fragment, FragmentReader
from trainer.process.placement import Placement
from trainer.tasks.frozen import frozen_names
from trainer.zero.stages import Stage


def freeze(network: nn.Module, patterns: Sequence[str]) -> nn.Module:
    """Turn off the gradients of the parameters with matching names; return the network.

    Args:
        network: the network, changed in place.
        patterns: patterns of parameter names.

    Raises:
        EngineError: a pattern matches nothing, or all parameters are frozen.
    """
    parameters = dict(network.named_parameters())
    for name in frozen_names(parameters, patterns):
        parameters[name].requires_grad_(False)
    return network


class FrozenWeights:
    """One rank's share of the fp32 weights of each frozen parameter."""

    def __init__(self, network: nn.Module, placement: Placement) -> None:
        """Copy this rank's share to the host.

        Args:
            network: the network with its initial weights, in fp32.
            placement: this rank and the number of ranks.
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
        """Names of the frozen parameters, in the network's order."""
        return list(self._shares)

    def summary_text(self, shapes: Mapping[str, Sequence[int]]) -> str:
        """Describe the number of frozen parameters and weights, for a notice at the start of a run.

        Args:
            shapes: the shapes of all parameters of the network, by name.
        """
        weights = sum(map(prod, shapes.values()))
        frozen = sum(prod(shapes[name]) for name in self._shares)
        return (
            f"{len(self._shares)} of {counted(len(shapes), 'parameter')} are frozen, {frozen:,} of "
            f"{counted(weights, 'weight')}"
        )

    def fragments(self) -> Iterator[Fragment]:
        """Yield this rank's share as views; each element belongs to one rank."""
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
        """Load a checkpoint's frozen weights into the network, whole on every rank; a collective.

        Args:
            module: the network under ZeRO.
            shapes: the shapes of all parameters, by name.
            stage: the adapter of the ZeRO stage, which sets the weights.
            read: reads the fragments of a checkpoint.
            fresh: see `trainer.zero.fragments.load_state`.
        """
        for name, parameter in module.named_parameters():
            if name in self._shares and name not in fresh:
                shape = shapes[name]
                weights = torch.empty(prod(shape))
                read(MASTER, name, 0, weights)
                stage.set_frozen(parameter, weights.view(shape))
