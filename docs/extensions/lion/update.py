"""Lion's update (Chen et al. 2023, Algorithm 2), the same bits wherever a vector is cut.

With m the moment, g the gradient and η the learning rate:

    c ← β₁·m + (1-β₁)·g
    θ ← θ·(1-η·decay) - η · sign(c)
    m ← β₂·m + (1-β₂)·g
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from trainer.exact.optimizer import ExactOptimizer


class Lion(ExactOptimizer):
    """Lion with decoupled weight decay."""

    moments = ("exp_avg",)

    def __init__(
        self, params: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float]
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    def update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        momentum = state["exp_avg"]
        if self.gradient_divisor != 1.0:
            gradient.div_(self.gradient_divisor)
        direction = (momentum * beta1).add_(gradient * (1 - beta1)).sign_()
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(direction.mul_(group["lr"]))
        momentum.mul_(beta2).add_(gradient * (1 - beta2))
