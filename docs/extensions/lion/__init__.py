"""Lion (Chen et al. 2023), an optimizer that a recipe may name.

    extensions: [lion]
    trainer:
      optimizer: {type: lion, betas: [0.9, 0.99], weight_decay: 0.1}

It keeps one moment, so its state takes 8 bytes a weight where Adam's takes 12. Its learning rate is
3 to 10 times smaller than Adam's, and its weight decay as many times larger (§5 of the paper).
"""

from typing import TYPE_CHECKING, Any

from trainer.registries.optimizers import OPTIMIZERS, OptimizerConfig, OptimizerKind

if TYPE_CHECKING:
    import torch


class LionKind(OptimizerKind):
    """One optimizer for both numerics: all of its operations round once."""

    moments = ("exp_avg",)
    reads = ("betas", "weight_decay")

    def build(
        self, groups: list[dict[str, Any]], settings: OptimizerConfig, *, exact: bool
    ) -> "torch.optim.Optimizer":
        # Here, since the driver reads recipes without torch.
        from lion.update import Lion

        return Lion(groups, lr=0.0, betas=settings.betas)


OPTIMIZERS.register("lion", LionKind)
