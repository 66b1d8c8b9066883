"""The step's summed gradients, wherever ZeRO keeps them between the last backward and the step.

- 0: the parameters' own, on every rank all of them.
- 1, 2, 3: ``averaged_gradients``, lists of this rank's parts by parameter group.
- 1 in bf16 (BF16_Optimizer): a flat fp32 partition per parameter group.
"""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

if TYPE_CHECKING:
    from trainer.zero.engine import Engine

Rounding = Callable[[nn.Parameter, torch.Tensor], None]


def owned_gradients(engine: "Engine") -> Iterator[torch.Tensor]:
    """This rank's share, flat; over all ranks each element once, and zeros where ZeRO pads."""
    optimizer = engine.optimizer
    if engine.zero_stage == 0:
        rank, world_size = engine.placement.rank, engine.placement.world_size
        for gradient in _replicated(engine):
            numel = gradient.numel()
            yield gradient.view(-1)[numel * rank // world_size : numel * (rank + 1) // world_size]
    elif hasattr(optimizer, "averaged_gradients"):
        for parts in optimizer.averaged_gradients.values():
            yield from parts
    else:
        yield from optimizer.fp32_groups_gradient_flat_partition


def flat_gradients(optimizer: Any) -> list[torch.Tensor]:
    """BF16_Optimizer's sums of gradients, one fp32 vector per parameter group; others have none."""
    return list(getattr(optimizer, "fp32_groups_gradients_flat", ()))


def add_to_flat_gradients(optimizer: Any, round_: Rounding | None) -> None:
    """Each gradient is added to its fp32 sum, and let go of, as soon as backward has worked it out.

    DeepSpeed would keep all bf16 gradients from step to step, which costs their memory, a pass to
    zero them and one to add to the zeros. ``round_`` rounds what is added, in fp32 and in place.
    """
    for group, parameters in enumerate(optimizer.bf16_groups):
        for place, parameter in enumerate(parameters):
            add = functools.partial(_add_to_flat_gradient, optimizer, round_, group, place)
            parameter.register_post_accumulate_grad_hook(add)


def sum_flat_gradients(engine: "Engine") -> None:
    """Sum them over the ranks, in place; a collective.

    DeepSpeed would copy them together, sum the copy and copy it back, on a single rank too.
    """
    if engine.placement.world_size > 1:
        for flat in flat_gradients(engine.optimizer):
            dist.all_reduce(flat)


def replicated_norm(engine: "Engine") -> float:
    """The norm of all gradients; stage 0 only."""
    return float(nn.utils.get_total_norm(list(_replicated(engine))))


def discard_gradients(engine: "Engine") -> None:
    """Forget them; does what DeepSpeed does with a step whose gradients overflow."""
    optimizer = engine.optimizer
    if engine.zero_stage == 0:
        engine.module.zero_grad()
        return
    # Gradients of parameters; in stage 3 the next backward then overwrites the partitions'
    # gradients instead of adding to them, and BF16_Optimizer's sums of gradients are zeroed.
    optimizer.zero_grad(set_to_none=True)
    if hasattr(optimizer, "averaged_gradients"):
        optimizer.averaged_gradients.clear()
    if hasattr(optimizer, "all_grad_tensors"):
        optimizer.all_grad_tensors.clear()


def _add_to_flat_gradient(
    optimizer: Any, round_: Rounding | None, group: int, place: int, parameter: nn.Parameter
) -> None:
    total = optimizer.fp32_groups_gradients[group][place]
    has_gradients = optimizer.fp32_groups_has_gradients[group]
    assert parameter.grad is not None
    gradient = parameter.grad.view(-1)
    if has_gradients[place]:
        if round_ is not None:
            gradient = gradient.float()
            round_(parameter, gradient)
        total.add_(gradient)
    else:  # zeros, which need not be read
        total.copy_(gradient)
        if round_ is not None:
            round_(parameter, total)
        has_gradients[place] = True
    parameter.grad = None


def _replicated(engine: "Engine") -> Iterator[torch.Tensor]:
    return (p.grad for p in engine.module.parameters() if p.grad is not None)
