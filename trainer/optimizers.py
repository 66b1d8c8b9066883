"""Optimizers by the names that recipes give them, and what the engine has to know of one.

    class SignDescent(OptimizerKind):
        reads = ("weight_decay",)
        not_exact_because = "nobody has measured whether its bits depend on where ZeRO cuts"

        def build(self, groups, settings, *, exact):
            from my_package.sign_descent import SignDescentStep

            return SignDescentStep(groups, lr=0.0)

    OPTIMIZERS.register("sign_descent", SignDescent)

A recipe then has, in its section `trainer.optimizer`, `{type: sign_descent}`; fields of the class
would be its `options`. docs/extensions/lion is a whole one, which is exact.

ZeRO gives an optimizer flat fp32 vectors that are cut anywhere, not parameters. So it must be
element-wise: an element's update follows from its own weight, gradient and moments, the step, and
the settings (see docs/decisions/0045).
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from data_pipeline.registry import Registry
from data_pipeline.section import Section

if TYPE_CHECKING:
    import torch

    from trainer.config import OptimizerConfig


class OptimizerKind(Section):
    """What the engine has to know of an optimizer; its fields are the optimizer's options.

    A process that only reads recipes, such as the driver, has no torch. So a module with such a
    class imports torch in `build` alone.

    Attributes:
        moments: the names of what a checkpoint holds of each element besides its weight. The state
            of a vector has a tensor of its shape under each of these names, which is zero at first,
            and under "step" a scalar tensor with the number of updates, and nothing else.
        reads: the fields of `trainer.optimizer` that it reads besides `type` and `options`.
        not_exact_because: why it cannot have `engine.numerics: exact`; None if it can.
    """

    moments: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ()
    not_exact_because: ClassVar[str | None] = None

    @abstractmethod
    def build(
        self, groups: list[dict[str, Any]], settings: "OptimizerConfig", *, exact: bool
    ) -> "torch.optim.Optimizer":
        """The optimizer itself.

        Args:
            groups: torch's parameter groups, each with its `weight_decay`. The engine sets the
                `lr` of each of them before each step.
            exact: whether numerics are exact; the result must then be a
                `trainer.exact.optimizer.ExactOptimizer`.
        """


OPTIMIZERS: Registry[type[OptimizerKind]] = Registry("optimizer", "trainer.optimizer.type")
OPTIMIZERS.register("adamw", "trainer.zero.adamw:AdamWKind")
