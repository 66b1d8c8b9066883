"""Detection of steps whose loss or gradient norm spikes (`trainer.spike_guard`).

    last applied steps ──median, MAD──▶ thresholds ──below the step's values──▶ Spike: not applied

The thresholds follow from the losses and norms of the last applied steps alone, so they are a pure
function of the curve. Those steps are the state of the guard, which every checkpoint stores. A run
therefore skips the same steps after a restart. With `numerics: exact`, it does so on any number of
ranks.

Both values are the same on all ranks before the gradients are applied, so all ranks decide alike.
"""

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from run_store.checkpoints.format import RecentSteps
from trainer.config import DEVIATION_PER_MAD, SpikeGuardConfig
from trainer.registries.callbacks import Skip, StepGuard, StepView

# Minimum deviation, as a share of the median. Otherwise, after very similar steps, a step that
# differs little would be a spike.
MIN_RELATIVE_DEVIATION = 0.01


class Spike(NamedTuple):
    """Step with a loss or gradient norm above its threshold.

    Attributes:
        loss: the loss of the step, per loss unit.
        grad_norm: the norm of its gradients before clipping.
        loss_threshold: the largest loss that is no spike.
        grad_norm_threshold: the largest norm that is no spike.
    """

    loss: float
    grad_norm: float
    loss_threshold: float
    grad_norm_threshold: float


class SpikeGuard(StepGuard):
    """Guard that skips steps whose loss or gradient norm spikes."""

    def __init__(self, config: SpikeGuardConfig) -> None:
        self._config = config
        self._recent = RecentSteps()

    def decide(self, view: StepView, gradient_norm: Callable[[], float]) -> Skip | None:
        spike = find_spike(self._config, self._recent, view.loss, gradient_norm())
        if spike is None:
            return None
        values = spike._asdict().items()
        return Skip(
            "its loss or gradient norm spikes",
            remedy="more deviations in trainer.spike_guard",
            slots=tuple(spiking_slots(spike, view.slot_losses, view.slot_units)),
            fields={"cause": "spike"} | {name: v for name, v in values if math.isfinite(v)},
        )

    def applied(self, view: StepView, gradient_norm: float) -> None:
        self._recent = with_step(self._recent, self._config.window, view.loss, gradient_norm)

    def state(self) -> dict[str, Any]:
        return self._recent.model_dump(mode="json")

    def restore(self, state: dict[str, Any]) -> None:
        self._recent = RecentSteps(**state)


def find_spike(
    config: SpikeGuardConfig, recent: RecentSteps, loss: float, grad_norm: float
) -> Spike | None:
    """Return the spike of a step, or None if the step is to be applied.

    Args:
        config: the settings of the guard.
        recent: the last applied steps.
        loss: the loss of the step, which is finite.
        grad_norm: the norm of its gradients. An infinite norm or NaN is no spike, because the
            engine does not apply such a step.
    """
    if len(recent.losses) < config.minimum_steps or not math.isfinite(grad_norm):
        return None
    loss_threshold = threshold(recent.losses, config.loss_deviations)
    grad_norm_threshold = threshold(recent.grad_norms, config.norm_deviations)
    if loss <= loss_threshold and grad_norm <= grad_norm_threshold:
        return None
    return Spike(loss, grad_norm, loss_threshold, grad_norm_threshold)


def threshold(values: Sequence[float], deviations: float) -> float:
    """Return the largest value that is no spike after these values.

    It is infinite if all values are 0, because they give no scale.
    """
    middle = median(values)
    mad = median(abs(value - middle) for value in values)
    deviation = max(DEVIATION_PER_MAD * mad, MIN_RELATIVE_DEVIATION * abs(middle))
    return middle + deviations * deviation if deviation else math.inf


def with_step(recent: RecentSteps, window: int, loss: float, grad_norm: float) -> RecentSteps:
    """Return the window extended by an applied step, without its oldest step if it is full."""
    return RecentSteps(
        losses=(*recent.losses, loss)[-window:],
        grad_norms=(*recent.grad_norms, grad_norm)[-window:],
    )


def spiking_slots(spike: Spike, losses: Sequence[float], slot_units: Sequence[int]) -> list[int]:
    """Return the slots whose loss is above the threshold, or else the slot with the largest loss.

    Args:
        spike: the spike of the step.
        losses: the sum of the losses of each slot.
        slot_units: the loss units of each slot; a slot without units has no loss.
    """
    by_slot = [loss / max(1, units) for loss, units in zip(losses, slot_units, strict=True)]
    above = [slot for slot, loss in enumerate(by_slot) if loss > spike.loss_threshold]
    return above or [by_slot.index(max(by_slot))]
