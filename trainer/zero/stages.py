"""Adapters of DeepSpeed's ZeRO stages, with a common interface that locates the training state.

    stage 0            Replicated      the parameters themselves, their gradients, torch's optimizer
    stage 1 and 2      Partitioned     flat fp32 partitions per parameter group
    stage 1 in bf16    FlatSums        the same, and a flat fp32 sum of gradients per group
    stage 3            Sharded         each parameter cut into equal parts, the last one padded

All private names of DeepSpeed's optimizers are in this file, as of version 0.19.8.
"""

import functools
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import nn

from run_store.checkpoints.fragment import MASTER
from trainer.errors import EngineError
from trainer.exact.grids import as_fp32
from trainer.process.distributed import sum_over_ranks
from trainer.process.placement import Placement
from trainer.zero.gradient_buckets import CAPACITY, GradientBuckets

Gradients = list[torch.Tensor]
_CLIPPING_EPSILON = 1e-6  # as in DeepSpeed
_INVALID_NORM = -1.0  # DeepSpeed's code for a norm that is not finite

# Function that receives parameters and their gradients, and returns the gradients to add.
Receiver = Callable[[list[nn.Parameter], Gradients], Gradients]
Process = Callable[[list[nn.Parameter], Gradients], None]
# A function that rounds the gradients of parameters, in place.
Rounding = Callable[[list[nn.Parameter], Gradients], None]


class Stage(ABC):
    """State of a model under DeepSpeed, as this rank holds it.

    Attributes:
        replicated: whether every rank has the whole state.
        averages: whether DeepSpeed divides summed gradients by the number of ranks.
        rounds_when_adding: whether this class rounds gradients to their grids when it adds them;
            otherwise, the engine rounds them when it receives them.
        reuses_memory: whether DeepSpeed overwrites the gradients that the engine receives before
            the pass ends.
    """

    replicated = False
    averages = False
    rounds_when_adding = False
    reuses_memory = False

    def __init__(
        self, engine: Any, optimizer: Any, placement: Placement, clipping: float | None
    ) -> None:
        """Store the objects of DeepSpeed, and replace its slow parts.

        Args:
            engine: the engine that `deepspeed.initialize` returned.
            optimizer: the optimizer that `deepspeed.initialize` returned.
            placement: this rank and the number of ranks.
            clipping: the largest norm of the gradients, 0 for any; None if a step needs no norm of
                DeepSpeed.
        """
        self._engine = engine
        self._optimizer = optimizer
        self._placement = placement
        self._clipping = clipping
        # Adds the last gradients of a pass, if this class adds gradients instead of DeepSpeed.
        self.end_pass: Callable[[], None] = lambda: None

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
        and a flat view. The parts of all ranks together contain every gradient once; in stage 0,
        each rank has all gradients.
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

    def receive_gradients(
        self, parameters: Iterable[nn.Parameter], receive: Receiver, round_: Rounding | None
    ) -> None:
        """Install hooks that pass on gradients as soon as backward has computed them.

        Args:
            parameters: the trained parameters.
            receive: receives the gradients before they are added to the step's gradients.
            round_: rounds gradients if `rounds_when_adding`; None for no rounding.
        """

        def hook(parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor | None:
            (received,) = receive([parameter], [gradient])
            return None if received is gradient else received

        for parameter in parameters:
            parameter.register_hook(functools.partial(hook, parameter))

    def _receive_in_buckets(
        self, receive: Receiver, reduce: str, bucket: Callable[..., Iterable[nn.Parameter]]
    ) -> None:
        """Pass on gradients in the buckets that DeepSpeed reduces, before it reduces them.

        Args:
            receive: as in `receive_gradients`.
            reduce: the name of DeepSpeed's method that reduces a bucket.
            bucket: returns the parameters of a bucket; has the same arguments as the method.
        """

        def process(parameters: list[nn.Parameter], gradients: Gradients) -> None:
            received = receive(parameters, gradients)
            for gradient, result in zip(gradients, received, strict=True):
                if result is not gradient:
                    gradient.copy_(result)

        def receive_and_reduce(*arguments: Any, **options: Any) -> None:
            for parameter in bucket(*arguments, **options):
                assert parameter.grad is not None
                buckets.add(parameter, parameter.grad)
            buckets.flush()
            original(*arguments, **options)

        self.reuses_memory = True
        buckets = GradientBuckets(process, self._capacity)
        original = getattr(self._optimizer, reduce)
        setattr(self._optimizer, reduce, receive_and_reduce)

    def _take_in_buckets(self, parameters: Iterable[nn.Parameter], process: Process) -> None:
        """Remove gradients from their parameters, so that DeepSpeed does not add them to sums."""

        def take(parameter: nn.Parameter) -> None:
            assert parameter.grad is not None
            buckets.add(parameter, parameter.grad)
            parameter.grad = None

        self.end_pass = (buckets := GradientBuckets(process, self._capacity)).flush
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(take)

    @property
    def _capacity(self) -> int:
        return CAPACITY[self._placement.torch_device.type]

    def reduce_in_order(self, parameters: Iterable[nn.Parameter]) -> None:  # noqa: B027
        """Reduce gradients in the order of `parameters`, if a pass reduces them before it ends.

        Compiled and uncompiled passes compute gradients in different orders. Without a fixed order,
        ranks would add gradients of different parameters.
        """

    def sum_gradients(self) -> None:  # noqa: B027
        """Reduce the sums that this class keeps instead of DeepSpeed; a collective."""

    def gathered(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any] | None:
        """Return a context in which this rank holds whole parameters, or None if none is needed."""
        return None


class Replicated(Stage):
    """Stage 0: no ZeRO; DeepSpeed sums the parameters' gradients over the ranks."""

    replicated = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._engine.clip_fp32_gradients = self._clip
        self._sums: dict[nn.Parameter, torch.Tensor] = {}  # sums over the passes of a step

    def receive_gradients(
        self, parameters: Iterable[nn.Parameter], receive: Receiver, round_: Rounding | None
    ) -> None:
        self._engine.enable_backward_allreduce = False

        def process(parameters: list[nn.Parameter], gradients: Gradients) -> None:
            received = dict(zip(parameters, receive(parameters, gradients), strict=True))
            if later := [parameter for parameter in received if parameter in self._sums]:
                torch._foreach_add_(
                    [self._sums[parameter] for parameter in later],
                    [received[parameter] for parameter in later],
                )
            self._sums = received | self._sums

        self._take_in_buckets(parameters, process)

    def sum_gradients(self) -> None:
        for parameter, total in self._sums.items():
            parameter.grad = total
        self._sums = {}
        if self._placement.world_size > 1:
            self._engine.allreduce_gradients()

    @property
    def torch_optimizer(self) -> Any:
        return self._optimizer

    def optimized_tensors(self) -> list[torch.Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def locate(self, parameter: nn.Parameter, kind: str) -> tuple[int, torch.Tensor]:
        state = parameter.data if kind == MASTER else self._optimizer.state[parameter][kind]
        return 0, state.view(-1)

    def refresh_compute_weights(self) -> None:
        pass  # forward reads the master weights directly

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
        self._sums = {}

    def _clip(self) -> None:
        """Clip as DeepSpeed does, but all gradients at the same time."""
        assert self._clipping
        gradients = list(self._gradients())
        norm = _squares(gradients).sum().sqrt() / self._placement.world_size
        deepspeed.comm.all_reduce(norm)  # DeepSpeed takes the mean over the ranks
        factor = torch.full_like(norm, self._clipping) / (norm + _CLIPPING_EPSILON)
        torch._foreach_mul_(gradients, factor.clamp_(max=1.0))

    def _gradients(self) -> Iterator[torch.Tensor]:
        return (p.grad for p in self._engine.module.parameters() if p.grad is not None)


class Partitioned(Stage):
    """Stages 1 and 2: moments, and in stage 2 gradients, are partitioned over the ranks.

    `parameter._hp_mapping` addresses the flat partitions, and is None on ranks that hold no part of
    the parameter.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._take_norms()

    def _take_norms(self) -> None:
        # DeepSpeed would test all elements for overflow. The passes have done that, and DeepSpeed
        # refuses a sum of gradients whose norm is not finite.
        self._optimizer.check_overflow = lambda **_: None
        self._optimizer.compute_grad_norm = self._clipping is not None
        self._optimizer.get_grad_norm_direct = self._norm_of_group

    def receive_gradients(
        self, parameters: Iterable[nn.Parameter], receive: Receiver, round_: Rounding | None
    ) -> None:
        optimizer = self._optimizer
        if not optimizer.partition_gradients:  # stage 1 reduces the sums of all passes
            super().receive_gradients(parameters, receive, round_)
            return

        def bucket(comm_dtype: torch.dtype | None = None) -> Iterator[nn.Parameter]:
            for dtype in optimizer.ipg_buckets if comm_dtype is None else [comm_dtype]:
                for group, place, _ in optimizer.ipg_buckets[dtype].params:
                    yield optimizer.bit16_groups[group][place]

        self._receive_in_buckets(receive, "reduce_ipg_grads", bucket)

    def reduce_in_order(self, parameters: Iterable[nn.Parameter]) -> None:
        if not self.reuses_memory:  # stage 1 reduces the sums of all passes
            return
        arrived: dict[nn.Parameter, int] = {}
        order = itertools.cycle(parameters)
        expected = next(order)

        def process(parameter: nn.Parameter, group: int) -> None:
            nonlocal expected
            arrived[parameter] = group
            while expected in arrived:
                original(expected, arrived.pop(expected))
                expected = next(order)

        def require_all() -> None:
            if arrived:
                raise EngineError(
                    "engine.compile is layers and zero_stage is 2, but a pass computes no gradient "
                    "of some parameters: use zero_stage 1 in a new run"
                )

        original = self._optimizer.process_gradients
        self._optimizer.process_gradients = process
        self.end_pass = require_all

    def _norm_of_group(self, gradients: Gradients, parameters: object) -> torch.Tensor:
        parts = [part for part in gradients if not getattr(part, "_zero_padding", False)]
        return _norm_over_ranks(_squares(parts, torch.float64).sum().float())

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
    copy, reduce the copy and copy it back, even on a single rank. Its step would compute and clip
    the norm one parameter at a time, and wait for the device before it clips.
    """

    rounds_when_adding = True

    def _take_norms(self) -> None:
        self._optimizer.step = self._step

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

    def receive_gradients(
        self, parameters: Iterable[nn.Parameter], receive: Receiver, round_: Rounding | None
    ) -> None:
        self._engine.enable_backward_allreduce = False
        self._places = {
            parameter: (group, place)
            for group, members in enumerate(self._optimizer.bf16_groups)
            for place, parameter in enumerate(members)
        }

        def process(parameters: list[nn.Parameter], gradients: Gradients) -> None:
            self._add(parameters, receive(parameters, gradients), round_)

        self._take_in_buckets(parameters, process)

    def _add(
        self, parameters: list[nn.Parameter], gradients: Gradients, round_: Rounding | None
    ) -> None:
        first: list[tuple[nn.Parameter, torch.Tensor, torch.Tensor]] = []
        later: list[tuple[nn.Parameter, torch.Tensor, torch.Tensor]] = []
        for parameter, gradient in zip(parameters, gradients, strict=True):
            group, place = self._places[parameter]
            has_gradients = self._optimizer.fp32_groups_has_gradients[group]
            total = self._optimizer.fp32_groups_gradients[group][place]
            (later if has_gradients[place] else first).append((parameter, gradient.view(-1), total))
            has_gradients[place] = True
        if first:  # the sums are zero, and their values need not be read
            new, added, totals = map(list, zip(*first, strict=True))
            torch._foreach_copy_(totals, added)
            if round_:
                round_(new, totals)
        if later:
            known, added, totals = map(list, zip(*later, strict=True))
            if round_ or not adds_other_types(added[0]):
                added = as_fp32(added)
            if round_:
                round_(known, added)
            torch._foreach_add_(totals, added)

    def _step(self) -> None:
        """Clip and apply the gradients, as DeepSpeed does; the host waits at most once."""
        optimizer = self._optimizer
        optimizer.overflow, optimizer._global_grad_norm = False, 0.0
        if self._clipping is not None:
            sums = [total for group in optimizer.fp32_groups_gradients for total in group]
            norm = _squares(sums).sum().sqrt().cpu()
            optimizer._global_grad_norm = float(norm)
            if not math.isfinite(norm):
                optimizer.overflow, optimizer._global_grad_norm = True, math.inf
                return  # the engine discards the gradients
            if self._clipping and (factor := self._clipping / (norm + _CLIPPING_EPSILON)) < 1:
                for part in self.owned_gradients():
                    part.mul_(factor)
        for weights, gradient in zip(self.optimized_tensors(), self.owned_gradients(), strict=True):
            weights.grad = gradient
        self.torch_optimizer.step()
        optimizer._lazy_init_hp_params_optimizer_state()
        optimizer.update_lp_params()

    def sum_gradients(self) -> None:
        if self._placement.world_size > 1:
            for flat in self._optimizer.fp32_groups_gradients_flat:
                dist.all_reduce(flat)


class Sharded(Stage):
    """Stage 3: parameters are partitioned too, and gathered when forward reads them.

    In this stage DeepSpeed can only average gradients, not sum them.
    """

    averages = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._optimizer.get_grad_norm_direct = self._norm_of_group
        self._optimizer.partition_grads = self._add_parts
        if self._clipping is None:
            self._optimizer._get_norm_groups = lambda: [torch.zeros(())]

    def _add_parts(self, parameters: list[Any], parts: Gradients) -> None:
        """Add this rank's parts of a bucket to the sums; DeepSpeed would add one at a time."""
        optimizer, totals, added = self._optimizer, [], []
        sums = optimizer._DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = None
            if part.numel() * self._placement.rank < parameter.ds_numel:  # is not only padding
                totals.append(sums[parameter.ds_id].view(-1)[: part.numel()])
                added.append(part.view(-1))
        if not totals:
            return
        if optimizer.micro_step_id == 0:
            torch._foreach_copy_(totals, added)
        else:
            torch._foreach_add_(totals, as_fp32(added))

    def receive_gradients(
        self, parameters: Iterable[nn.Parameter], receive: Receiver, round_: Rounding | None
    ) -> None:
        name = "_DeepSpeedZeroOptimizer_Stage3__reduce_and_partition_ipg_grads"
        buckets = self._optimizer.ipg_buckets
        self._receive_in_buckets(receive, name, lambda dtype: buckets[dtype].params)

    def _norm_of_group(self, gradients: Gradients, parameters: object) -> torch.Tensor:
        return _norm_over_ranks(_squares(gradients, torch.float64).sum())

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


def stage_of(
    zero_stage: int, engine: Any, optimizer: Any, placement: Placement, clipping: float | None
) -> Stage:
    """Return the adapter for the objects that `deepspeed.initialize` created for the stage."""
    if zero_stage == 0:
        kind: type[Stage] = Replicated
    elif zero_stage == 3:
        kind = Sharded
    elif hasattr(optimizer, "fp32_groups_gradients_flat"):
        kind = FlatSums
    else:
        kind = Partitioned
    return kind(engine, optimizer, placement, clipping)


def adds_other_types(tensor: torch.Tensor) -> bool:
    """Return whether a tensor of a different type is added without a copy, and no slower."""
    return tensor.is_cpu  # on a GPU, they would be added one at a time


# The following functions compute norms in the given precision, like DeepSpeed's functions for one
# tensor at a time. So their results have the same bits on a CPU.


def _squares(parts: Gradients, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the squared norm of each tensor, [parts]."""
    return torch.stack(torch._foreach_norm(parts, 2, dtype)).square()


def _norm_over_ranks(squares: torch.Tensor) -> torch.Tensor:
    """Return the norm of all ranks' parts, or DeepSpeed's code for a norm that is not finite."""
    deepspeed.comm.all_reduce(squares)
    return squares.sqrt().nan_to_num_(_INVALID_NORM, _INVALID_NORM)
