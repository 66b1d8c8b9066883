"""Registry of optimizers by their names in recipes, and the properties that the engine needs.

    class SignDescent(OptimizerKind):
        reads = ("weight_decay",)
        not_exact_because = "its kernels were not tested for bits that depend on the partitioning"

        def build(self, groups, settings, *, exact):
            from my_package.sign_descent import SignDescentStep

            return SignDescentStep(groups, lr=0.0)

    OPTIMIZERS.register("sign_descent", SignDescent)

A recipe selects this optimizer in its section `trainer.optimizer` with `{type: sign_descent}`. If
the class has fields, the recipe sets them under `options`. docs/extensions/lion is a complete
example, which supports exact numerics.

Under ZeRO, an optimizer does not receive parameters, but flat fp32 vectors that may be cut
anywhere. So the optimizer must be element-wise: an element's update must follow only from its
weight, gradient and moments, the step, and the settings (see docs/decisions/0045).
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from foundation.registry import Registry
from foundation.section import Section, identity, require_defaults
from trainer.registries.validators import known_in, options_for

if TYPE_CHECKING:
    import torch

Moment = Annotated[float, Field(ge=0, lt=1)]


class OptimizerKind(Section):
    """Properties of an optimizer that the engine needs; its fields are the optimizer's options.

    A process that only reads recipes, such as the driver, does not import torch. So a module with
    such a class must import torch only in `build`.

    Attributes:
        moments: the names of the state that a checkpoint holds for each element in addition to its
            weight. The optimizer's state of a vector must have a tensor of the vector's shape,
            initially zero, under each of these names. Under "step", it must have a scalar tensor
            with the number of updates. It must not have any other entries.
        reads: the fields of `trainer.optimizer` that the optimizer uses, in addition to `type` and
            `options`.
        not_exact_because: the reason why the optimizer does not support `engine.numerics: exact`,
            or None if it does.
    """

    moments: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ()
    not_exact_because: ClassVar[str | None] = None

    @abstractmethod
    def build(
        self, groups: list[dict[str, Any]], settings: "OptimizerConfig", *, exact: bool
    ) -> "torch.optim.Optimizer":
        """Return the optimizer.

        Args:
            groups: torch's parameter groups, each with its `weight_decay`. The engine sets their
                `lr` before each step.
            settings: the section `trainer.optimizer` of the recipe.
            exact: whether numerics are exact; the result must then be a
                `trainer.exact.optimizer.ExactOptimizer`.
        """


OPTIMIZERS: Registry[type[OptimizerKind]] = Registry("optimizer", "trainer.optimizer.type")
OPTIMIZERS.register("adamw", "trainer.zero.adamw:AdamWKind")


class OptimizerConfig(Section):
    """AdamW (Kingma & Ba 2015; Loshchilov & Hutter 2019), or an optimizer of an extension."""

    # Validate `options` even if the recipe gives none.
    model_config = ConfigDict(validate_default=True)

    type: Annotated[str, known_in(OPTIMIZERS)] = identity(
        "adamw", "`adamw`, or an optimizer that an extension registers."
    )
    betas: tuple[Moment, Moment] = identity(
        (0.9, 0.98),
        "Decay of the first and second moment; §5.3 of Attention Is All You Need uses 0.9, 0.98.",
    )
    epsilon: float = identity(1e-9, "Number added to the root of the second moment.", gt=0)
    weight_decay: float = identity(
        0.0, "Decoupled weight decay of matrices; norms and biases do not decay.", ge=0
    )
    options: Annotated[dict[str, Any], options_for(OPTIMIZERS, "type")] = identity(
        {}, "Settings of an extension's optimizer."
    )

    @model_validator(mode="after")
    def _optimizer_reads_what_is_set(self) -> "OptimizerConfig":
        own = set(type(self).model_fields) - {"type", "options"}
        unread = own.difference(OPTIMIZERS[self.type].reads)
        require_defaults(self, f"optimizer type {self.type!r}", unread)
        return self
