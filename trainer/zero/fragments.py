"""The training state as named fragments, whatever ZeRO does with it underneath.

A fragment is a run of consecutive elements of one flattened parameter: of its fp32 master
weights (``master``), of one of Adam's moments (``exp_avg``, ``exp_avg_sq``), or of the weights'
moving average (``ema``), which `trainer.state.ema` keeps. Every element of the state is owned by
exactly one rank. Saving writes what a rank owns; loading fills what it holds, from fragments cut
under any other number of ranks and any other ZeRO stage.

Where the state lies, by stage:

- 0: the parameters themselves and torch's optimizer state, replicated; ranks own equal shares.
- 1, 2: flat fp32 partitions per parameter group; ``parameter._hp_mapping`` addresses them and is
  None on ranks that hold no part of the parameter.
- 3: each parameter is cut into equal parts, the last one padded.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from trainer.zero.engine import Engine


MASTER = "master"
MOMENTS = ("exp_avg", "exp_avg_sq")
EMA = "ema"


@dataclass(frozen=True)
class Fragment:
    """Elements ``start … start + len(tensor)`` of a flattened parameter; a view of the state."""

    kind: str
    parameter: str
    start: int
    tensor: torch.Tensor

    @property
    def stop(self) -> int:
        return self.start + self.tensor.numel()


# Reads elements [start, stop) of one kind of one parameter, as fp32 on the host.
FragmentReader = Callable[[str, str, int, int], torch.Tensor]


def owned_fragments(
    engine: "Engine", kinds: Sequence[str] = (MASTER, *MOMENTS)
) -> Iterator[Fragment]:
    """The fragments that this rank writes to a checkpoint; over all ranks, each element once."""
    rank, world_size = engine.placement.rank, engine.placement.world_size
    for held in held_fragments(engine, kinds):
        if engine.zero_stage > 0:
            yield held
            continue
        numel = held.tensor.numel()
        start, stop = numel * rank // world_size, numel * (rank + 1) // world_size
        if start < stop:
            yield Fragment(held.kind, held.parameter, start, held.tensor[start:stop])


def held_fragments(
    engine: "Engine", kinds: Sequence[str] = (MASTER, *MOMENTS)
) -> Iterator[Fragment]:
    """The fragments that lie on this rank, as views; writing to them changes the state."""
    for name, parameter in engine.module.named_parameters():
        for kind in kinds:
            located = _locate(engine, parameter, kind)
            if located is not None:
                start, tensor = located
                yield Fragment(kind, name, start, tensor.detach())


@torch.no_grad()
def load_state(engine: "Engine", read: FragmentReader, optimizer_step: int) -> None:
    """Fill master weights, moments and Adam's step, then refresh the weights computed with."""
    create_moments(engine, optimizer_step)
    for held in held_fragments(engine):
        held.tensor.copy_(read(held.kind, held.parameter, held.start, held.stop))
    _refresh_compute_weights(engine)


@torch.no_grad()
def create_moments(engine: "Engine", optimizer_step: int) -> None:
    """Allocate Adam's state as its first step would: a moment must exist before it is set."""
    state = _base_optimizer(engine).state
    for tensor in _optimized_tensors(engine):
        state[tensor] = {
            "step": torch.tensor(float(optimizer_step), device=tensor.device),
            **{moment: torch.zeros_like(tensor) for moment in MOMENTS},
        }


def optimizer_step(engine: "Engine") -> int:
    """How many updates Adam has made; its bias correction depends on it."""
    state = _base_optimizer(engine).state[_optimized_tensors(engine)[0]]
    return int(state["step"]) if state else 0


def _locate(
    engine: "Engine", parameter: nn.Parameter, kind: str
) -> tuple[int, torch.Tensor] | None:
    """Start and flat view of this rank's part of a parameter's state; None if it has no part."""
    if engine.zero_stage == 0:
        tensor = parameter.data if kind == MASTER else engine.optimizer.state[parameter][kind]
        return 0, tensor.view(-1)
    if engine.zero_stage == 3:
        part = engine.optimizer.get_local_fp32_param(parameter, None if kind == MASTER else kind)
        start = engine.placement.rank * part.numel()
        real = min(part.numel(), parameter.ds_numel - start)  # type: ignore[attr-defined]
        return (start, part.view(-1)[:real]) if real > 0 else None
    mapping = parameter._hp_mapping  # type: ignore[attr-defined]
    if mapping is None:
        return None
    # Not mapping.optim_fragment: DeepSpeed fills it after the first group's first step, when the
    # other groups have no moments yet.
    tensor = _optimized_tensors(engine)[mapping.param_group_index]
    if kind != MASTER:
        tensor = _base_optimizer(engine).state[tensor][kind]
    address = mapping.get_hp_fragment_address()
    return mapping.lp_fragment_address.start, tensor.narrow(0, address.start, address.numel)


def _base_optimizer(engine: "Engine") -> Any:
    """torch's optimizer under DeepSpeed's wrapper (stage 0 in fp32 has no wrapper)."""
    return engine.optimizer if engine.zero_stage == 0 else engine.optimizer.optimizer


def _optimized_tensors(engine: "Engine") -> list[torch.Tensor]:
    """The tensors that torch's optimizer updates on this rank."""
    optimizer = engine.optimizer
    if engine.zero_stage == 0:
        return [p for group in optimizer.param_groups for p in group["params"]]
    if engine.zero_stage == 3:
        return list(optimizer.fp32_partitioned_groups_flat)
    if hasattr(optimizer, "single_partition_of_fp32_groups"):
        return list(optimizer.single_partition_of_fp32_groups)
    return list(optimizer.fp32_groups_flat_partition)  # BF16_Optimizer: bf16 with stage 1


def _refresh_compute_weights(engine: "Engine") -> None:
    """Copy the master weights to the (bf16 or fp32) weights that forward reads."""
    optimizer = engine.optimizer
    if engine.zero_stage in (1, 2):
        optimizer.update_lp_params()
    elif engine.zero_stage == 3:  # what its step() does around the update itself
        optimizer._partition_all_parameters()
        for sub_group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(sub_group)
        optimizer._post_step([])
