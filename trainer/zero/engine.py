"""ZeRO engine: a step's passes and its update, in any ZeRO stage of DeepSpeed.

Input: a plain model and its settings. Per micro-batch: forward, backward, accumulation of
gradients. Per step: gradients summed over the ranks, clipped, applied. Output: the gradient norm,
and through `trainer.zero.fragments` the parts of the state that this rank owns.
`trainer.zero.stages` contains the parts that depend on the stage.

The loss of a micro-batch is a *sum* over tokens divided by the target tokens of the whole step.
Gradients are summed over micro-batches and ranks and never averaged, so the result does not depend
on the distribution of slots over ranks. With `numerics: exact` no sum is rounded either, so not
even the last bit depends on it (see `trainer.exact`).
"""

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import deepspeed
import numpy as np
import torch
from torch import nn

from data_pipeline.batching.plan import slots_of_rank
from trainer.config import EngineConfig
from trainer.errors import EngineError
from trainer.exact.gradient_digest import digest_of
from trainer.exact.grids import GradientGrids, largest_magnitudes
from trainer.exact.norm import norm as exact_norm
from trainer.exact.optimizer import ExactOptimizer
from trainer.process.placement import Placement
from trainer.process.step_timer import StepTimer
from trainer.registries.optimizers import OptimizerConfig
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.network import Network, sum_names
from trainer.zero.compiled_layers import CompiledLayers
from trainer.zero.frozen import FrozenWeights, freeze
from trainer.zero.process_wide import engine_process_settings, timed_collectives
from trainer.zero.reduction_check import ReductionCheck
from trainer.zero.settings import (
    bucket_elements,
    build_optimizer,
    deepspeed_config,
    parameter_groups,
)
from trainer.zero.stages import Stage, stage_of

logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
# By default DeepSpeed compiles an all-reduce for inference on CPUs at start. Nothing here uses it,
# and a rank that is killed while compiling leaves a lock that blocks every later rank.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

SMALL_GRADIENT = 2**14  # maximum number of elements of a small gradient, see _to_watch


class PassResult(NamedTuple):
    """Results of one micro-batch, on the device.

    Attributes:
        sums: [k], the sums that the network's forward returns; the first is minimised.
        finite: whether the loss and all gradients of this micro-batch are finite, a scalar. The
            exchange also refuses those above `trainer.exact.grids.LARGEST` if numerics are exact.
        amax: [trained parameters], the gradients' largest absolute values; None unless `numerics:
            exact`.
        digests: [trained parameters + 1], int64: the digest of each parameter's gradient before it
            is rounded to its grid, and the digest of `sums`; None unless they were requested.
    """

    sums: torch.Tensor
    finite: torch.Tensor
    amax: torch.Tensor | None = None
    digests: torch.Tensor | None = None


class TrainingEngine:
    """Model under DeepSpeed, with separate methods for a micro-batch and for a step's update.

    Attributes:
        stage: the adapter that locates the state in ZeRO's buffers.
        loss: the last argument of the network's forward, after the tensors of a batch.
        sum_names: the names of `PassResult.sums`, known after the first pass.
        slots_per_rank: the number of forward and backward passes of a step on every rank.
        moments: the names of the optimizer's moments.
        grids: the grids on which gradients are summed; None with `numerics: fast`.
        frozen: the weights that are not trained.
        timer: the timer of this rank, which measures the collectives.
        trained: the names of the trained parameters, in the order of `PassResult.amax`.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        *,
        engine: EngineConfig,
        optimizer: OptimizerConfig,
        gradient_clipping: float,
        loss: object,
        micro_batches_per_step: int,
        placement: Placement,
        frozen: Sequence[str] = (),
        compiled: CompiledLayers | None = None,
    ) -> None:
        """Build the network and initialize DeepSpeed; the process group must exist.

        Args:
            build: creates the network with its initial weights; called again for replicas.
            engine: precision, ZeRO stage and numerics.
            optimizer: the optimizer and its settings.
            gradient_clipping: the largest global gradient norm, or 0 for no clipping.
            loss: the last argument of the network's forward.
            micro_batches_per_step: the number of slots of a step over all ranks.
            placement: this rank and its device.
            frozen: patterns of the parameters that are not trained.
            compiled: the compiled layers, or None if the engine compiles none.

        Raises:
            EngineError: a pattern matches nothing, or the settings are incompatible.
        """
        self._build = lambda: freeze(build(), frozen)
        self._compiled = compiled
        model = self._build()
        self.sum_names: tuple[str, ...] = ()
        self.placement = placement
        self.timer = StepTimer(placement)
        self.zero_stage = engine.zero_stage
        self.slots_per_rank = len(slots_of_rank(0, placement.world_size, micro_batches_per_step))
        self.parameter_shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        self.frozen = FrozenWeights(model, placement)
        trained = {n: p for n, p in model.named_parameters() if n not in self.frozen}
        self.trained = tuple(trained)
        self.loss = loss
        self._gradient_clipping = gradient_clipping
        self.grids: GradientGrids | None = None
        if engine.numerics == "exact":
            _require_exact_division(engine, placement.world_size)
            self.grids = GradientGrids(list(trained), micro_batches_per_step)
        self._zero_gradients = False
        self._digests: dict[int, torch.Tensor] | None = None  # by parameter, if requested
        # By parameter, the tensors that show whether a pass is finite: a small gradient, or the sum
        # of a large gradient. With `numerics: exact`, they are the gradients' largest magnitudes.
        self._watched: dict[int, torch.Tensor] = {}
        self._indices = {parameter: index for index, parameter in enumerate(trained.values())}
        self._reductions: ReductionCheck | None = None
        if self.grids and engine.verify_reductions:
            self._reductions = ReductionCheck(self.grids, self._indices, placement)
        _checkpoint_activations(model, engine.activation_checkpointing)
        self.checkpoints_activations = engine.activation_checkpointing
        # DeepSpeed casts parameters but not buffers, such as the table of positions.
        model.to(placement.torch_device, torch.bfloat16 if engine.precision == "bf16" else None)
        with contextlib.ExitStack() as process_wide:
            settings = engine_process_settings(exact=bool(self.grids), compiles=bool(compiled))
            process_wide.enter_context(settings)
            groups = parameter_groups(model, optimizer.weight_decay)
            self.moments, self._torch_optimizer = build_optimizer(groups, optimizer, engine)
            self._initialise(model, engine)
            process_wide.enter_context(timed_collectives(self.timer))
            if compiled:
                process_wide.enter_context(compiled.training(model))
            self._process_wide = process_wide.pop_all()

    def _initialise(self, model: nn.Module, engine: EngineConfig) -> None:
        clipping = 0.0 if self.grids else self._gradient_clipping
        with contextlib.redirect_stdout(None):  # DeepSpeed prints its memory use
            self._engine, self.optimizer, _, _ = deepspeed.initialize(
                model=model,
                optimizer=self._torch_optimizer,
                config=deepspeed_config(
                    engine, clipping, self.slots_per_rank, bucket_elements(model)
                ),
                dist_init_required=False,
            )
        effective = self._engine.gradient_clipping()
        if effective != clipping:
            raise EngineError(
                f"DeepSpeed clips gradients at norm {effective}, expected {clipping}: use the "
                "version of DeepSpeed in pyproject.toml"
            )
        self.stage: Stage = stage_of(
            self.zero_stage,
            self._engine,
            self.optimizer,
            self.placement,
            None if self.grids else self._gradient_clipping,
        )
        round_ = self._round if self.grids else None
        self.stage.receive_gradients(self._indices, self._on_gradients, round_)
        if self._compiled:
            self.stage.reduce_in_order([*self._indices][::-1])
        # Losses or gradients are multiplied by this number to undo DeepSpeed's division by the
        # number of ranks; with grids, _on_gradients multiplies the gradients.
        self._divided_by = self.placement.world_size if self.stage.averages else 1
        self._loss_factor = 1 if self.grids else self._divided_by

    @property
    def module(self) -> nn.Module:
        """Wrapped network; under ZeRO-3 its parameters are partitioned between forward passes."""
        module = self._engine.module
        assert isinstance(module, nn.Module)
        return module

    @property
    def width(self) -> int:
        """Width of the model."""
        width = self.module.width
        assert isinstance(width, int)
        return width

    def forward_backward(
        self,
        batch: DeviceBatch,
        *,
        units_global: int,
        is_accumulation_boundary: bool,
        is_dummy: bool,
        is_digested: bool = False,
    ) -> PassResult:
        """Run forward and backward on a micro-batch, and add its gradients to those of the step.

        Args:
            batch: the micro-batch.
            units_global: the denominator of the loss for the whole step, such as its target tokens.
            is_accumulation_boundary: whether this is the rank's last micro-batch of the step.
            is_dummy: whether the pass only makes the number of passes equal on all ranks, or only
                computes digests. Its gradients are then set to zero, and the pass counts as finite.
            is_digested: whether to compute `PassResult.digests`.
        """
        self._engine.set_gradient_accumulation_boundary(is_accumulation_boundary)
        self._zero_gradients = is_dummy
        self._watched.clear()
        self._digests = {} if is_digested else None
        known = {"known": batch.packings} if batch.packings else {}
        named_sums = self._engine(*batch.inputs, self.loss, **known)
        self.sum_names = sum_names(named_sums, self.module)
        loss = named_sums[0] * (self._loss_factor / units_global)
        self._engine.backward(loss, scale_wrt_gas=False)
        self.stage.end_pass()
        sums = torch.stack([value.detach() for value in named_sums])
        result = self._result(sums, self._take_digests(sums), is_dummy)
        if is_accumulation_boundary:
            with self.timer.wait():
                self.stage.sum_gradients()
        return result

    def _result(
        self, sums: torch.Tensor, digests: torch.Tensor | None, is_dummy: bool
    ) -> PassResult:
        if is_dummy:
            return PassResult(sums, sums.new_ones((), dtype=torch.bool), digests=digests)
        # All have the precision of the gradients, because `cat` would convert each one separately.
        watched = torch.cat([self._watched[index].flatten() for index in sorted(self._watched)])
        # The sum is finite only if all numbers are.
        finite = (watched.sum(dtype=torch.float32) + sums[0]).isfinite()
        return PassResult(sums, finite, watched.float() if self.grids else None, digests)

    def refit(self, amax: np.ndarray | None) -> list[str] | None:
        """Widen grids and discard the step's gradients if a gradient does not fit its grid.

        Args:
            amax: as in `step`.

        Returns:
            None if all gradients fit. Otherwise the names of the parameters whose grids were too
            narrow; the caller must then repeat the step's passes. The list is empty in a run's
            first step, whose first passes only measure the gradients.
        """
        if self.grids is None or amax is None or self.grids.fits(amax):
            return None
        self._discard_sums()
        return self.grids.widen(amax)

    def wrong_reductions(self) -> list[str]:
        """Return the parameters whose sums of gradients are wrong, by checksums; a collective.

        Call it before the step's gradients are applied, if all slots are finite and `refit` has
        returned None. The list is empty without `engine.verify_reductions`. If the list is not
        empty, the gradients are discarded, and the caller may repeat the step's passes.
        """
        if self._reductions is None:
            return []
        wrong = self._reductions.wrong_parameters(
            self.stage.owned_parts(), replicated=self.stage.replicated
        )
        if wrong:
            self._discard_sums()
        return [self.trained[index] for index in wrong]

    def gradient_norm(self, amax: np.ndarray | None = None) -> float:
        """Return the global norm of the step's gradients before clipping; a collective.

        All ranks return the same norm. The caller then applies the gradients with `step`, or
        discards them.

        Args:
            amax: as in `step`.
        """
        if self.grids:
            assert amax is not None
            gradients = self.stage.owned_gradients()
            if self._reductions and not self.stage.replicated:
                # ZeRO's padding is not verified. It adds nothing to the norm unless it is wrong.
                gradients = (part for _, _, part in self.stage.owned_parts())
            return exact_norm(gradients, self.grids.bound(amax), self.placement)
        return self.stage.gradient_norm()

    def step(
        self, learning_rate: float, amax: np.ndarray | None = None, norm: float | None = None
    ) -> float:
        """Apply the step's gradients, and return their global norm before clipping.

        All ranks return the same norm. If the norm is not finite, all ranks discard the gradients,
        and the step is not applied.

        Args:
            learning_rate: the learning rate of this step.
            amax: [slots, trained parameters], `PassResult.amax` of all slots; None unless
                `numerics: exact`.
            norm: the result of `gradient_norm` if the caller has it. It is returned, unless
                DeepSpeed finds that the gradients overflow.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if self.grids:
            assert amax is not None
            return self._exact_step(self.grids, amax, norm)
        if self.stage.replicated:
            norm = self.gradient_norm() if norm is None else norm
            if math.isfinite(norm):
                self._engine.step()
            else:
                self.discard_gradients()
            return norm
        self._engine.step()
        found = float(self._engine.get_global_grad_norm())
        if not 0 <= found < math.inf:  # -1 is DeepSpeed's code for an invalid norm
            return math.inf
        return found if norm is None else norm

    def discard_gradients(self) -> None:
        """Discard the step's gradients, so that the step leaves no trace in the engine.

        Call it on all ranks after the last backward pass.
        """
        self._discard_sums()
        if self.grids:
            self.grids.revert()

    def _discard_sums(self) -> None:
        self.stage.discard_gradients()
        if self._reductions:
            self._reductions.restart()

    def parameter_group_settings(self) -> list[dict[str, Any]]:
        """Return the settings of each parameter group, such as `lr` and `betas`, as JSON values."""
        return [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]

    @contextlib.contextmanager
    def inference_model(self) -> Iterator[nn.Module]:
        """Yield the current weights as a model in eval mode whose forward needs no other rank.

        Under ZeRO-3 every forward of the module is a collective. Ranks that decode outputs of
        different lengths would make different numbers of forward calls, and block. So the weights
        are gathered once into a plain replica.
        """
        parameters = list(self.module.parameters())
        if (gathered := self.stage.gathered(parameters)) is not None:
            replica = self.replica()
            with gathered, torch.no_grad():
                for mine, theirs in zip(replica.parameters(), parameters, strict=True):
                    mine.copy_(theirs)
            yield replica.eval()
            return
        self.module.eval()
        try:
            yield self.module
        finally:
            self.module.train()

    def replica(self) -> nn.Module:
        """Return a new model with the engine's device and precision, and with initial weights."""
        replica = self._build()
        _checkpoint_activations(replica, self.checkpoints_activations)
        if self._compiled:
            self._compiled.use_in(replica)
        dtype = next(self.module.parameters()).dtype
        return replica.to(device=self.placement.torch_device, dtype=dtype)

    @contextlib.contextmanager
    def observe_gradients(self, show: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
        """Call `show` with each parameter's gradient of each pass within the context.

        The gradient of a dummy is zero. A gradient is not rounded to its grid yet, except in
        stage 1 of fp32. The computation does not change.

        Args:
            show: receives the parameter's name and its gradient, which it must not change.
        """

        def hook(name: str, gradient: torch.Tensor) -> None:
            if self._zero_gradients:
                gradient = torch.zeros_like(gradient)
            show(name, gradient / self._loss_factor if self._loss_factor > 1 else gradient)

        # Hooks run in the order of their registration, so these run after _on_gradients in stage 1
        # of fp32; in other stages they run before.
        handles = [
            parameter.register_hook(functools.partial(hook, name))
            for name, parameter in self.module.named_parameters()
            if name not in self.frozen
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def destroy(self) -> None:
        """Release DeepSpeed's hooks, buffers and process groups.

        Afterwards this process can create another engine and another process group.
        """
        try:
            self._engine.destroy()
        finally:
            self._process_wide.close()

    def _exact_step(self, grids: GradientGrids, amax: np.ndarray, norm: float | None) -> float:
        """Perform `step` with exact numerics: the same bits for any partitioning."""
        norm = self.gradient_norm(amax) if norm is None else norm
        assert isinstance(self._torch_optimizer, ExactOptimizer)
        clips = 0 < self._gradient_clipping < norm
        self._torch_optimizer.gradient_divisor = norm / self._gradient_clipping if clips else 1.0
        self._engine.step()
        grids.follow(amax)
        if self._reductions:
            self._reductions.restart()
        return norm

    def _take_digests(self, sums: torch.Tensor) -> torch.Tensor | None:
        digests, self._digests = self._digests, None
        if digests is None:
            return None
        none = torch.zeros((), dtype=torch.int64, device=sums.device)
        gradients = [digests.get(index, none) for index in range(len(self.trained))]
        return torch.stack([*gradients, digest_of(sums)])

    def _round(self, parameters: Sequence[nn.Parameter], gradients: list[torch.Tensor]) -> None:
        assert self.grids is not None
        self.grids.round_([self._indices[parameter] for parameter in parameters], gradients)

    def _on_gradients(
        self, parameters: Sequence[nn.Parameter], gradients: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Process gradients that a backward pass has computed; return the gradients to add.

        The gradients of a dummy are set to zero rather than multiplied by zero, because NaN × 0 is
        NaN. Digests are computed first, from the gradients that the backward pass has computed, so
        they do not depend on the grids.
        """
        indices = [self._indices[parameter] for parameter in parameters]
        if self._digests is not None:
            self._digests.update(zip(indices, map(digest_of, gradients), strict=True))
        if self._zero_gradients:
            return [torch.zeros_like(gradient) for gradient in gradients]
        self._watched.update(zip(indices, self._to_watch(gradients), strict=True))
        if self.grids and not self.stage.rounds_when_adding:
            self._round(parameters, gradients)
            if self._divided_by > 1:
                torch._foreach_mul_(gradients, self._divided_by)
        return gradients

    def _to_watch(self, gradients: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Return tensors that show whether the gradients are finite.

        With exact numerics, and on a GPU, these are the largest magnitudes. On a CPU, a small
        gradient itself is returned, because an extra operation would cost more, and the sum of a
        large gradient. Torch sums bf16 in fp32, and the bf16 result has the same range.
        """
        if self.grids or not gradients[0].is_cpu:
            return largest_magnitudes(gradients)
        # Return a view: torch would copy a gradient to which there is a second reference.
        return [
            gradient.sum()
            if gradient.numel() > SMALL_GRADIENT or self.stage.reuses_memory
            else gradient.detach()
            for gradient in gradients
        ]


def _checkpoint_activations(network: nn.Module, on: bool) -> None:
    cast(Network, network).checkpoint_activations(on)


def _require_exact_division(engine: EngineConfig, ranks: int) -> None:
    """Require that stage 3's division by the number of ranks can be undone without rounding."""
    if engine.precision == "bf16" and engine.zero_stage == 3 and ranks & (ranks - 1):
        raise EngineError(
            f"The run has {ranks} ranks, with engine.numerics exact, precision bf16 and zero_stage "
            "3. In stage 3 DeepSpeed averages gradients, which is exact in bf16 only on 1, 2, 4, "
            "8, … ranks. Use such a number of ranks, or zero_stage 1 or 2"
        )
