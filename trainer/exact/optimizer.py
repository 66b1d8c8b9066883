"""What `engine.numerics: exact` asks of an optimizer.

An element's bits must follow from its own weight, gradient and moments, the step and the settings,
and from nothing else: not from its place in a vector, nor from where the vector begins in memory,
nor from the number of threads. Torch's kernels take most elements by vector instructions and what
is left one by one, so an operation has to round alike in both. Those that round once do (IEEE 754):
`mul_`, `div_`, `sqrt_`, `sign_`, `add_` of a tensor. Those that multiply and add at once, such as
`lerp_`, `addcmul_`, or `add_` with `alpha`, promise nothing: whether the sum is rounded once or
twice is for the compiler to say.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor


class ExactOptimizer(torch.optim.Optimizer, ABC):
    """An optimizer of fp32 vectors whose result does not depend on how they are cut.

    Attributes:
        moments: the names of the moments, as those of its
            `trainer.registries.optimizers.OptimizerKind`.
        gradient_divisor: what clipping divides every gradient by. DeepSpeed does not clip where
            numerics are exact, for its norm depends on the partitions.
    """

    moments: ClassVar[tuple[str, ...]]
    gradient_divisor = 1.0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient; the gradients may be changed in place."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self._state_of(parameter)
                    self.update(parameter, parameter.grad, state, group)
                    state["step"] += 1

    @abstractmethod
    def update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Update a vector and its moments in place, with the gradient over `gradient_divisor`.

        Args:
            state: the moments by name, and under "step" how many updates came before this one.
            group: the settings, `lr` and `weight_decay` among them.
        """

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state |= {moment: torch.zeros_like(parameter) for moment in self.moments}
        return state
