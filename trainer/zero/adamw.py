"""AdamW, the default optimizer of recipes."""

from typing import TYPE_CHECKING, Any

from trainer.registries.optimizers import OptimizerConfig, OptimizerKind

if TYPE_CHECKING:
    import torch


class AdamWKind(OptimizerKind):
    """AdamW (Loshchilov & Hutter 2019), or ExactAdamW if the engine's numerics are exact."""

    moments = ("exp_avg", "exp_avg_sq")
    reads = ("betas", "epsilon", "weight_decay")

    def build(
        self, groups: list[dict[str, Any]], settings: OptimizerConfig, *, exact: bool
    ) -> "torch.optim.Optimizer":
        # Imported late: a driver that only reads this kind's settings does not load torch.
        from trainer.exact.adamw import ExactAdamW
        from trainer.zero.disable_compiler import AdamW

        if exact:
            return ExactAdamW(groups, lr=0.0, betas=settings.betas, eps=settings.epsilon)
        return AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.epsilon, fused=True)
