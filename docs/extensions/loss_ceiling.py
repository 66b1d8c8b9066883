"""Skip steps whose loss is far above a moving average of losses: a guard that a recipe may name.

    extensions: [loss_ceiling]
    callbacks:
      - {type: loss_ceiling, options: {factor: 1.5, decay: 0.98, stop_above: 20}}

With L the loss of a step and M the moving average of the losses of applied steps:

    L > factor · M       the step is skipped
    L > stop_above       the run ends
    otherwise            M ← decay · M + (1 - decay) · L, once the step is applied

M is the state of the guard. Every checkpoint has it, so a restarted run skips the same steps.
"""

from collections.abc import Callable
from typing import Any

from foundation.section import identity
from trainer.registries.callbacks import CALLBACKS, GuardKind, Skip, StepGuard, StepView, Stop


class LossCeilingGuard(StepGuard):
    """Guard that compares each loss with the losses before it."""

    def __init__(self, settings: "LossCeiling") -> None:
        self._settings = settings
        self._mean: float | None = None  # None before the first applied step

    def decide(self, view: StepView, gradient_norm: Callable[[], float]) -> Skip | None:
        limit = self._settings.stop_above
        if limit is not None and view.loss > limit:
            return Stop(f"its loss {view.loss:.4g} was above stop_above {limit:.4g}")
        if self._mean is None or view.loss <= self._settings.factor * self._mean:
            return None
        return Skip(
            f"its loss {view.loss:.4g} was above {self._settings.factor:.4g} times the average "
            f"{self._mean:.4g}"
        )

    def applied(self, view: StepView, gradient_norm: float) -> None:
        decay = self._settings.decay if self._mean is not None else 0.0
        self._mean = decay * (self._mean or 0.0) + (1 - decay) * view.loss

    def state(self) -> dict[str, Any]:
        return {"mean": self._mean}

    def restore(self, state: dict[str, Any]) -> None:
        self._mean = state["mean"]


class LossCeiling(GuardKind):
    """Settings of the guard."""

    factor: float = identity(1.5, "Loss as a multiple of the average that is skipped.", gt=1)
    decay: float = identity(0.98, "Decay of the moving average.", ge=0, lt=1)
    stop_above: float | None = identity(None, "Loss that ends the run; null for none.", gt=0)

    def build(self) -> StepGuard:
        return LossCeilingGuard(self)


CALLBACKS.register("loss_ceiling", LossCeiling)
