"""Lion's update (Chen et al. 2023, Algorithm 2), the same bits wherever a vector is cut.

With m the moment, g the gradient and η the learning rate:

    c ← β₁·m + (1-β₁)·g
    θ ← θ·(1-η·decay) - η · sign(c)
    m ← β₂·m + (1-β₂)·g

Vectors are taken a chunk at a time, so that what lies between two operations stays in the cache.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from trainer.exact.optimizer import ExactOptimizer

CHUNK = 2**14  # elements


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
        vectors = (parameter, gradient, state["exp_avg"])
        for chunk in zip(*(v.detach().view(-1).split(CHUNK) for v in vectors), strict=True):
            self._update_chunk(group, *chunk)

    def _update_chunk(
        self, group: dict[str, Any], weights: Tensor, gradient: Tensor, momentum: Tensor
    ) -> None:
        beta1, beta2 = group["betas"]
        if self.gradient_divisor != 1.0:
            gradient.div_(self.gradient_divisor)
        direction = (momentum * beta1).add_(gradient * (1 - beta1)).sign_()
        if group["weight_decay"]:
            weights.mul_(1 - group["lr"] * group["weight_decay"])
        weights.sub_(direction.mul_(group["lr"]))
        momentum.mul_(beta2).add_(gradient * (1 - beta2))
