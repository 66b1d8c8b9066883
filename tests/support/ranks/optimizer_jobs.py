"""Optimizers of torch, registered like an extension's, and jobs that train with them."""

from typing import Any

import torch

from foundation.section import identity
from support.ranks.engine_jobs import Shape, make_engine, train_steps
from trainer.process.placement import Placement
from trainer.registries.optimizers import OPTIMIZERS, OptimizerConfig, OptimizerKind
from trainer.zero import fragments

RMSPROP, FORGETFUL, ROUNDING = "test_rmsprop", "test_forgetful", "test_rounding"


class RmsProp(OptimizerKind):
    """RMSprop, which has one moment."""

    moments = ("square_avg",)
    reads = ("epsilon", "weight_decay")
    not_exact_because = "nobody has measured its kernels"
    alpha: float = identity(0.9, "Decay of the moment.", ge=0, lt=1)

    def build(self, groups: Any, settings: OptimizerConfig, *, exact: bool) -> Any:
        return torch.optim.RMSprop(groups, lr=0.0, alpha=self.alpha, eps=settings.epsilon)


class Forgetful(OptimizerKind):
    """AMSGrad, which has a third moment that its kind does not declare."""

    moments = ("exp_avg", "exp_avg_sq")
    reads = ("weight_decay",)

    def build(self, groups: Any, settings: OptimizerConfig, *, exact: bool) -> Any:
        return torch.optim.Adam(groups, lr=0.0, amsgrad=True)


class Rounding(OptimizerKind):
    """Optimizer that does not refuse exact numerics, but does not support them."""

    moments = ("exp_avg", "exp_avg_sq")
    reads = ("weight_decay",)

    def build(self, groups: Any, settings: OptimizerConfig, *, exact: bool) -> Any:
        return torch.optim.Adam(groups, lr=0.0)


OPTIMIZERS.register(RMSPROP, RmsProp)
OPTIMIZERS.register(FORGETFUL, Forgetful)
OPTIMIZERS.register(ROUNDING, Rounding)


def kinds_after_training(placement: Placement, shape: Shape, optimizer: str) -> Any:
    """Return losses of some steps, the kinds of state after them, and the optimizer's step."""
    engine = make_engine(placement, shape, optimizer=optimizer)
    try:
        losses = train_steps(engine, 1, 3)
        kinds = {owned.kind for owned in fragments.owned_fragments(engine)}
        return losses, kinds, fragments.optimizer_step(engine)
    finally:
        engine.destroy()
