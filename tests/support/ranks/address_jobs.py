"""Job for a `RankPool` that records the addresses at which products and norms read parameters."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from model.blocks.linear import ALIGNMENT
from support.ranks.engine_jobs import Shape, train_steps
from support.ranks.shape_jobs import Network, engine_of
from trainer.process.placement import Placement

READERS = ("mm", "linear", "norm")  # parts of the names of the operations


class ParameterReads(TorchDispatchMode):
    """Recorder of addresses modulo `ALIGNMENT`, by operation."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module
        self.addresses: dict[str, set[int]] = defaultdict(set)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if any(part in name for part in READERS):
            tensors = [each for each in args if isinstance(each, torch.Tensor)]
            owned = {_memory(parameter) for parameter in self._module.parameters()}
            read = [each for each in tensors if each.numel() and _memory(each) in owned]
            self.addresses[name] |= {each.data_ptr() % ALIGNMENT for each in read}
        return func(*args, **(kwargs or {}))


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def observe(
    placement: Placement, shape: Shape, network: Network
) -> tuple[dict[str, set[int]], set[int]]:
    """Return the addresses at which a step reads parameters, and those of all parameters."""
    with engine_of(placement, shape, network) as engine:
        with ParameterReads(engine.module) as reads:
            train_steps(engine, 1, 1)
        own = {each.data_ptr() % ALIGNMENT for each in engine.module.parameters()}
    return dict(reads.addresses), own
