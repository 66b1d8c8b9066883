"""Requirements of `engine.numerics: exact` on an optimizer.

An element's bits must follow only from its weight, gradient and moments, the step and the settings.
They must not depend on its position in a vector, the vector's address, or the number of threads.
Torch's kernels process most elements with vector instructions and the rest one by one, so an
operation has to round in the same way in both cases.

Operations that round only once meet this requirement (IEEE 754): `mul_`, `div_`, `sqrt_`, `sign_`,
and `add_` of a tensor. Operations that both multiply and add do not: `lerp_`, `addcmul_`, and
`add_` with `alpha`. Whether they round once or twice depends on the compiler of their kernels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor


class ExactOptimizer(torch.optim.Optimizer, ABC):
    """Optimizer of fp32 vectors whose result does not depend on how they are partitioned.

    Attributes:
        moments: the names of the moments, the same as in the optimizer's
            `trainer.registries.optimizers.OptimizerKind`.
        gradient_divisor: the number that `update` divides every gradient by for clipping; 1 without
            clipping. DeepSpeed does not clip, because its norm depends on the partitions.
    """

    moments: ClassVar[tuple[str, ...]]
    gradient_divisor = 1.0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient; the gradients may be changed in place."""
        assert closure is None
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            if parameters:
                states = [self._state_of(parameter) for parameter in parameters]
                self.update_all(parameters, [each.grad for each in parameters], states, group)
                torch._foreach_add_([state["step"] for state in states], 1.0)

    def update_all(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        states: list[dict[str, Tensor]],
        group: dict[str, Any],
    ) -> None:
        """Call `update` for each of these vectors; subclasses may update all of them at once."""
        for parameter, gradient, state in zip(parameters, gradients, states, strict=True):
            self.update(parameter, gradient, state, group)

    @abstractmethod
    def update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Update a vector and its moments in place, with `gradient` divided by `gradient_divisor`.

        Args:
            parameter: the vector to update.
            gradient: the gradient, which the method must divide by `gradient_divisor`.
            state: the moments by name, and under "step" the number of updates before this one.
            group: the settings, including `lr` and `weight_decay`.
        """

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state |= {moment: torch.zeros_like(parameter) for moment in self.moments}
        return state
