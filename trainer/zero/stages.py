"""Adapters of DeepSpeed's ZeRO stages, with a common interface that locates the training state.

    stage 0            Replicated      the parameters themselves, their gradients, torch's optimizer
    stage 1 and 2      Partitioned     flat fp32 partitions per parameter group
    stage 1 in bf16    FlatSums        the same, and a flat fp32 sum of gradients per group
    stage 3            Sharded         each parameter cut into equal parts, the last one padded

All private names of DeepSpeed's optimizers are in this file, as of version 0.19.8.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import nn

from trainer.process.distributed import sum_over_ranks
from trainer.process.placement import Placement
from trainer.zero.fragment import MASTER

# A function that rounds the gradient of a parameter, in place.
Rounding = Callable[[nn.Parameter, torch.Tensor], None]


class Stage(ABC):
    """State of a model under DeepSpeed, as this rank holds it.

    Attributes:
        replicated: whether every rank has the whole state.
        averages: whether DeepSpeed divides summed gradients by the number of ranks.
        rounds_when_adding: whether `add_gradients` rounds gradients to their grids, instead of the
            engine's gradient hook.
    """

    replicated = False
    averages = False
    rounds_when_adding = False

    def __init__(self, engine: Any, optimizer: Any, placement: Placement) -> None:
        """Store the objects of DeepSpeed.

        Args:
            engine: the engine that `deepspeed.initialize` returned.
            optimizer: the optimizer that `deepspeed.initialize` returned.
            placement: this rank and the number of ranks.
        """
        self._engine = engine
        self._optimizer = optimizer
        self._placement = placement

    @property
    def torch_optimizer(self) -> Any:
        """Torch's optimizer inside DeepSpeed's wrapper."""
        return self._optimizer.optimizer

    @abstractmethod
    def optimized_tensors(self) -> list[torch.Tensor]:
        """Return the tensors that torch's optimizer updates on this rank."""

    @abstractmethod
    def locate(self, parameter: nn.Parameter, kind: str) -> tuple[int, torch.Tensor] | None:
        """Return the start and a flat view of this rank's part of a parameter's state.

        Args:
            parameter: the parameter.
            kind: MASTER or the name of one of the optimizer's moments.

        Returns:
            The index of the first element in the flattened parameter, and the view; or None if this
            rank has no part of the parameter.
        """

    @abstractmethod
    def refresh_compute_weights(self) -> None:
        """Copy the master weights to the weights that forward reads, which are in bf16 or fp32."""

    def set_frozen(self, parameter: nn.Parameter, weights: torch.Tensor) -> None:
        """Set the weights of a parameter that is not trained; a collective.

        Args:
            parameter: the parameter.
            weights: its whole weights, equal on all ranks.
        """
        parameter.data.copy_(weights)

    def owned_gradients(self) -> Iterator[torch.Tensor]:
        """Yield flat tensors with this rank's share of the step's summed gradients.

        Each gradient element is in the share of exactly one rank. ZeRO's padding is zero.
        """
        for parts in self._optimizer.averaged_gradients.values():
            yield from parts

    @abstractmethod
    def owned_parts(self) -> Iterator[tuple[nn.Parameter, int, torch.Tensor]]:
        """Yield this rank's parts of the step's summed gradients, in fp32.

        Each part is a parameter, the index of the part's first element in the flattened parameter,
        and a flat view. The parts of all ranks are every gradient once; in stage 0 each rank has
        all gradients.
        """

    def gradient_norm(self) -> float:
        """Return the norm of the step's summed gradients, the same on all ranks; a collective.

        Squares are added in fp64, so the norm is infinite only if an element is. The partitioning
        changes the result by rounding.
        """
        norms = [
            torch.linalg.vector_norm(part, dtype=torch.float64) for part in self.owned_gradients()
        ]
        total = torch.stack(norms).square().sum() if norms else torch.tensor(0.0).double()
        return float(sum_over_ranks(total.cpu(), self._placement).sqrt())

    def discard_gradients(self) -> None:
        """Discard the gradients, as DeepSpeed does in a step whose gradients overflow."""
        # This call sets the parameters' gradients to None and zeroes the sums of gradients
        # (FlatSums). In stage 3 the next backward then overwrites the partitions' gradients instead
        # of adding to them.
        self._optimizer.zero_grad(set_to_none=True)
        for name in ("averaged_gradients", "all_grad_tensors"):
            if hasattr(self._optimizer, name):
                getattr(self._optimizer, name).clear()

    def add_gradients(self, round_: Rounding | None) -> None:  # noqa: B027
        """Install hooks that sum gradients, if this class sums them instead of DeepSpeed.

        Args:
            round_: rounds each gradient; None for no rounding.
        """

    def sum_gradients(self) -> None:  # noqa: B027
        """Sum over the ranks what `add_gradients` has accumulated, if it was used; a collective."""

    def gathered(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any] | None:
        """Return a context in which this rank holds whole parameters, or None if none is needed."""
        return None


class Replicated(Stage):
    """Stage 0: no ZeRO; DeepSpeed sums the parameters' gradients over the ranks."""

    replicated = True

    @property
    def torch_optimizer(self) -> Any:
        return self._optimizer

    def optimized_tensors(self) -> list[torch.Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def locate(self, parameter: nn.Parameter, kind: str) -> tuple[int, torch.Tensor]:
        state = parameter.data if kind == MASTER else self._optimizer.state[parameter][kind]
        return 0, state.view(-1)

    def refresh_compute_weights(self) -> None:
        pass  # the master weights are those that forward reads

    def owned_gradients(self) -> Iterator[torch.Tensor]:
        rank, world_size = self._placement.rank, self._placement.world_size
        for gradient in self._gradients():
            numel = gradient.numel()
            yield gradient.view(-1)[numel * rank // world_size : numel * (rank + 1) // world_size]

    def owned_parts(self) -> Iterator[tuple[nn.Parameter, int, torch.Tensor]]:
        for parameter in self._engine.module.parameters():
            if parameter.grad is not None:
                yield parameter, 0, parameter.grad.view(-1)

    def gradient_norm(self) -> float:
        return float(nn.utils.get_total_norm(list(self._gradients())))

    def discard_gradients(self) -> None:
        self._engine.module.zero_grad()

    def _gradients(self) -> Iterator[torch.Tensor]:
        return (p.grad for p in self._engine.module.parameters() if p.grad is not None)


class Partitioned(Stage):
    """Stages 1 and 2: moments, and in stage 2 gradients, are partitioned over the ranks.

    `parameter._hp_mapping` addresses the flat partitions, and is None on ranks that hold no part of
    the parameter.
    """

    def optimized_tensors(self) -> list[torch.Tensor]:
        return list(self._optimizer.single_partition_of_fp32_groups)

    def locate(self, parameter: nn.Parameter, kind: str) -> tuple[int, torch.Tensor] | None:
        mapping = parameter._hp_mapping  # type: ignore[attr-defined]
        if mapping is None:
            return None
        # mapping.optim_fragment cannot be used here: DeepSpeed fills it after the first group's
        # first step, when the other groups have no moments yet.
        tensor = self.optimized_tensors()[mapping.param_group_index]
        if kind != MASTER:
            tensor = self.torch_optimizer.state[tensor][kind]
        address = mapping.get_hp_fragment_address()
        return mapping.lp_fragment_address.start, tensor.narrow(0, address.start, address.numel)

    def owned_parts(self) -> Iterator[tuple[nn.Parameter, int, torch.Tensor]]:
        for group, parts in self._optimizer.averaged_gradients.items():
            parameters = self._optimizer.params_in_partition[group]
            for place, (parameter, part) in enumerate(zip(parameters, parts, strict=False)):
                yield parameter, 0 if place else self._optimizer.first_offset[group], part.view(-1)

    def refresh_compute_weights(self) -> None:
        self._optimizer.update_lp_params()


class FlatSums(Partitioned):
    """Stage 1 in bf16 (DeepSpeed's BF16_Optimizer); this class sums the gradients in fp32.

    DeepSpeed would keep all bf16 gradients from step to step. That costs their memory, one pass to
    zero them and one pass to add to the zeros. DeepSpeed would also concatenate the sums into a
    copy, reduce the copy and copy it back, even on a single rank.
    """

    rounds_when_adding = True

    def optimized_tensors(self) -> list[torch.Tensor]:
        return list(self._optimizer.fp32_groups_flat_partition)

    def owned_gradients(self) -> Iterator[torch.Tensor]:
        yield from self._optimizer.fp32_groups_gradient_flat_partition

    def owned_parts(self) -> Iterator[tuple[nn.Parameter, int, torch.Tensor]]:
        sums = self._optimizer.fp32_groups_gradient_flat_partition
        for group, parameters in enumerate(self._optimizer.bf16_groups):
            for parameter in parameters:
                if (mapping := parameter._hp_mapping) is not None:
                    address = mapping.get_hp_fragment_address()
                    part = sums[group].narrow(0, address.start, address.numel)
                    yield parameter, mapping.lp_fragment_address.start, part

    def add_gradients(self, round_: Rounding | None) -> None:
        """Add each gradient to its sum, and free it, as soon as backward has computed it."""
        self._engine.enable_backward_allreduce = False
        for group, parameters in enumerate(self._optimizer.bf16_groups):
            for place, parameter in enumerate(parameters):
                add = functools.partial(_add_to_sum, self._optimizer, round_, group, place)
                parameter.register_post_accumulate_grad_hook(add)

    def sum_gradients(self) -> None:
        if self._placement.world_size > 1:
            for flat in self._optimizer.fp32_groups_gradients_flat:
                dist.all_reduce(flat)


class Sharded(Stage):
    """Stage 3: parameters are partitioned too, and gathered when forward reads them.

    In this stage DeepSpeed can only average gradients, not sum them.
    """

    averages = True

    def optimized_tensors(self) -> list[torch.Tensor]:
        return list(self._optimizer.fp32_partitioned_groups_flat)

    def locate(self, parameter: nn.Parameter, kind: str) -> tuple[int, torch.Tensor] | None:
        part = self._optimizer.get_local_fp32_param(parameter, None if kind == MASTER else kind)
        return self._without_padding(parameter, part)

    def owned_parts(self) -> Iterator[tuple[nn.Parameter, int, torch.Tensor]]:
        for group, parts in self._optimizer.averaged_gradients.items():
            for parameter, part in zip(self._optimizer.fp16_groups[group], parts, strict=True):
                if found := self._without_padding(parameter, part):
                    yield parameter, *found

    def _without_padding(
        self, parameter: nn.Parameter, part: torch.Tensor
    ) -> tuple[int, torch.Tensor] | None:
        start = self._placement.rank * part.numel()
        length = min(part.numel(), parameter.ds_numel - start)  # type: ignore[attr-defined]
        return (start, part.view(-1)[:length]) if length > 0 else None

    def refresh_compute_weights(self) -> None:
        # These are the calls that DeepSpeed's step() makes around the update itself.
        self._optimizer._partition_all_parameters()
        for sub_group in range(len(self._optimizer.fp32_partitioned_groups_flat)):
            self._optimizer._reassign_or_swap_out_partitioned_parameters(sub_group)
        self._optimizer._post_step([])
        # DeepSpeed has gathered small parameters persistently. If it then traces the order in which
        # a pass fetches parameters, and a validation gathers and partitions them after that, the
        # next pass fails with a "tracing error". Partitioning them once before the trace avoids it.
        with self.gathered(list(self._engine.module.parameters())):
            pass

    def set_frozen(self, parameter: nn.Parameter, weights: torch.Tensor) -> None:
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(weights)

    def gathered(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parameters)
        return context


def stage_of(zero_stage: int, engine: Any, optimizer: Any, placement: Placement) -> Stage:
    """Return the adapter for the objects that `deepspeed.initialize` created for the stage."""
    if zero_stage == 0:
        kind: type[Stage] = Replicated
    elif zero_stage == 3:
        kind = Sharded
    elif hasattr(optimizer, "fp32_groups_gradients_flat"):
        kind = FlatSums
    else:
        kind = Partitioned
    return kind(engine, optimizer, placement)


def _add_to_sum(
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
    else:  # the sum is zero, and its values need not be read
        total.copy_(gradient)
        if round_ is not None:
            round_(parameter, total)
        has_gradients[place] = True
    parameter.grad = None
