"""Warm-up, stable, decay (Hu et al. 2024, "MiniCPM"), a schedule that a recipe may name.

    extensions: [warm_up_stable_decay]
    trainer:
      schedule:
        type: warm_up_stable_decay
        options: {peak_learning_rate: 0.001, warmup_steps: 400, stable_until_step: 9000,
                  half_life_steps: 200}

With η the peak rate, W the steps of warm-up, T the last stable step and h the half-life:

    η·s/W                up to step W
    η                    up to step T
    η·0.5^((s-T)/h)      after it
"""

from pydantic import model_validator

from foundation.section import REQUIRED, identity
from trainer.registries.schedules import SCHEDULES, Schedule


class WarmUpStableDecay(Schedule):
    """A rate that stays at its peak until it decays at last."""

    peak_learning_rate: float = identity(REQUIRED, "The rate after warm-up.", gt=0)
    warmup_steps: int = identity(4000, "Steps of linear warm-up.", ge=0)
    stable_until_step: int = identity(REQUIRED, "The last step at the peak rate.", gt=0)
    half_life_steps: float = identity(5000.0, "Steps in which the decay halves the rate.", gt=0)

    @model_validator(mode="after")
    def _stable_after_warm_up(self) -> "WarmUpStableDecay":
        if self.stable_until_step < self.warmup_steps:
            raise ValueError(
                f"stable_until_step {self.stable_until_step} with warmup_steps "
                f"{self.warmup_steps}: set it to a later step"
            )
        return self

    def rate(self, step: int, width: int) -> float:
        if step < self.warmup_steps:
            return self.peak_learning_rate * step / self.warmup_steps
        over = max(0, step - self.stable_until_step)
        return float(self.peak_learning_rate * 0.5 ** (over / self.half_life_steps))


SCHEDULES.register("warm_up_stable_decay", WarmUpStableDecay)
