"""AdamW whose result does not depend on how the parameters are cut into partitions.

Each element goes through the same operations, each rounded once and to nearest (IEEE 754): products
and sums are never contracted into fused multiply-adds, which torch's optimisers use in the body of
a vector and not everywhere at its ends. With m and v the moments, g the gradient and t the step
(Kingma & Ba 2015, Algorithm 1; decoupled decay: Loshchilov & Hutter 2019, Algorithm 2):

    m ← β₁·m + (1-β₁)·g        v ← β₂·v + (1-β₂)·g²
    θ ← θ·(1-lr·decay) - (lr/(1-β₁ᵗ)) · m / (√v/√(1-β₂ᵗ) + ε)
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_CHUNK = 2**17  # elements that go through all operations while they are in the cache


class ExactAdamW(torch.optim.Optimizer):
    """AdamW, one rounding per operation; its state is named as that of `torch.optim.AdamW`."""

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.gradient_scale = 1.0  # what clipping multiplies every gradient by

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        step = float(state["step"])
        tensors = (parameter, gradient, state["exp_avg"], state["exp_avg_sq"])
        for chunks in zip(*(tensor.view(-1).split(_CHUNK) for tensor in tensors), strict=True):
            self._update_elements(group, step, *chunks)

    def _update_elements(
        self,
        group: dict[str, Any],
        step: float,
        parameter: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
    ) -> None:
        beta1, beta2 = group["betas"]
        if self.gradient_scale != 1.0:
            gradient = gradient * self.gradient_scale
        first.mul_(beta1).add_(gradient * (1 - beta1))
        second.mul_(beta2).add_((gradient * gradient).mul_(1 - beta2))
        divisor = second.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        update = (first / divisor).mul_(group["lr"] / (1 - beta1**step))
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(update)
