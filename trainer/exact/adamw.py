"""AdamW whose result does not depend on how the parameters are partitioned.

With θ the weight, m and v the moments, g the gradient and t the step (Kingma & Ba 2015, Algorithm
1; decoupled decay: Loshchilov & Hutter 2019, Algorithm 2):

    m ← β₁·m + (1-β₁)·g        v ← β₂·v + (1-β₂)·g²
    θ ← θ·(1-lr·decay) - (lr/(1-β₁ᵗ)) · m / (√v/√(1-β₂ᵗ) + ε)

An element's bits must follow only from its θ, g, m and v, not from its position in a partition.

On a CPU, torch's fused AdamW does all of this in one pass. It computes whole cache lines with
vector instructions. If a vector ends within a cache line, it computes the elements of this line one
by one, which rounds differently. So `ExactAdamW` pads the end of a vector to a cache line, and all
elements are computed in the same way.

On other devices, each operation of the formulas is a separate operation of torch, which rounds once
and to nearest (IEEE 754).
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.adamw import adamw

from trainer.exact.optimizer import ExactOptimizer

_LINE = 64 // torch.float32.itemsize  # number of elements in a cache line


class ExactAdamW(ExactOptimizer):
    """AdamW of fp32 parameters; the names in its state are those of `torch.optim.AdamW`."""

    moments = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    def update_all(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        states: list[dict[str, Tensor]],
        group: dict[str, Any],
    ) -> None:
        if updates_by_lines(parameters[0]):
            super().update_all(parameters, gradients, states, group)
            return
        moments = ([state[name] for state in states] for name in self.moments)
        # All parameters of a run are updated in each of its steps.
        self._update_elements(group, float(states[0]["step"]) + 1, parameters, gradients, *moments)

    def update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Run the fused update; pad the ends of the vectors if they are within a cache line."""
        tensors = [parameter, gradient, state["exp_avg"], state["exp_avg_sq"]]
        flat = [tensor.detach().view(-1) for tensor in tensors]
        steps = state["step"]
        whole = flat[0].numel() // _LINE * _LINE
        self._update_fused(group, steps, [vector[:whole] for vector in flat])
        ends = [vector[whole:] for vector in flat]
        if missing := -ends[0].numel() % _LINE:
            filled = [F.pad(end, (0, missing)) for end in ends]
            self._update_fused(group, steps, filled)
            for end, line in zip(ends, filled, strict=True):
                end.copy_(line[: end.numel()])

    def _update_fused(self, group: dict[str, Any], steps: Tensor, flat: list[Tensor]) -> None:
        parameter, gradient, first, second = flat
        beta1, beta2 = group["betas"]
        divides = self.gradient_divisor != 1.0
        adamw(
            [parameter],
            [gradient],
            [first],
            [second],
            [],
            [steps.clone()],  # pass a copy, because the fused update increments it
            fused=True,
            grad_scale=torch.tensor(self.gradient_divisor) if divides else None,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _update_elements(
        self,
        group: dict[str, Any],
        step: float,
        parameters: list[Tensor],
        gradients: list[Tensor],
        first: list[Tensor],
        second: list[Tensor],
    ) -> None:
        beta1, beta2 = group["betas"]
        if self.gradient_divisor != 1.0:
            torch._foreach_div_(gradients, self.gradient_divisor)
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, torch._foreach_mul(gradients, 1 - beta1))
        torch._foreach_mul_(second, beta2)
        squares = torch._foreach_mul(gradients, gradients)
        torch._foreach_mul_(squares, 1 - beta2)
        torch._foreach_add_(second, squares)
        divisors = torch._foreach_sqrt(second)
        torch._foreach_div_(divisors, math.sqrt(1 - beta2**step))
        torch._foreach_add_(divisors, group["eps"])
        updates = torch._foreach_div(first, divisors)
        torch._foreach_mul_(updates, group["lr"] / (1 - beta1**step))
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_sub_(parameters, updates)


def updates_by_lines(parameter: Tensor) -> bool:
    """Return whether torch's fused update computes all elements of a cache line alike."""
    return parameter.is_cpu
