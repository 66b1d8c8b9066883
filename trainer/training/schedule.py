"""Learning rates as pure functions of the step, so that a resumed run needs no scheduler state.

Each built-in `trainer.schedule.type` has a function. Extensions register others, see
`trainer.registries.schedules`.
"""

import math

from trainer.config import ScheduleConfig
from trainer.errors import ScheduleError
from trainer.registries.schedules import SCHEDULES, Schedule


def learning_rate(schedule: ScheduleConfig, step: int, width: int) -> float:
    """Return the learning rate of an optimizer step.

    All built-in types but `paper` rise linearly from `initial_learning_rate` to
    `peak_learning_rate` over `warmup_steps`. They differ after the warm-up.

    Args:
        schedule: the type and its settings.
        step: the optimizer step, from 1.
        width: the width of the model.

    Raises:
        ScheduleError: an extension's schedule returns an invalid rate.
    """
    assert step >= 1
    if registered := SCHEDULES[schedule.type]:
        return _registered_rate(registered.model_validate(schedule.options), step, width)
    if schedule.type == "paper":
        return paper(step, width, schedule.warmup_steps, schedule.scale)
    peak, warmup = schedule.peak_learning_rate, schedule.warmup_steps
    assert peak is not None  # checked when the recipe was loaded
    if step < warmup:
        return linear(schedule.initial_learning_rate, peak, step, warmup)
    over = step - warmup
    match schedule.type:
        case "constant":
            return peak
        case "inverse_square_root":
            return inverse_square_root(peak, step, warmup)
        case "linear":
            return linear(peak, schedule.final_learning_rate, over, _decay_steps(schedule))
        case "cosine":
            return cosine(peak, schedule.final_learning_rate, over, _decay_steps(schedule))
        case _:
            raise AssertionError(schedule.type)  # validation refuses other types


def paper(step: int, width: int, warmup_steps: int, scale: float) -> float:
    """Return the rate of Vaswani et al. 2017, §5.3, eq. 3, times `scale`.

    The rate of the paper is width^-0.5 · min(step^-0.5, step · warmup_steps^-1.5). It is a linear
    warm-up, followed by a decay with the inverse square root of the step.
    """
    return float(scale * width**-0.5 * min(step**-0.5, step * warmup_steps**-1.5))


def inverse_square_root(peak: float, step: int, warmup_steps: int) -> float:
    """Return peak · (warmup_steps / step)^0.5, as in fairseq (Ott et al. 2018)."""
    return float(peak * (max(warmup_steps, 1) / step) ** 0.5)


def linear(first: float, last: float, step: int, steps: int) -> float:
    """Interpolate linearly from `first` at step 0 to `last` at step `steps`, then stay constant.

    With `last` = 0, this is the decay of BERT (Devlin et al. 2019, §A.2).
    """
    return first + (last - first) * min(step, steps) / steps


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """Interpolate along half a cosine (Loshchilov & Hutter 2017, eq. 5, without restarts).

    The result is last + (first - last) · (1 + cos(π · step / steps)) / 2. The arguments have the
    same meaning as in `linear`.
    """
    return last + (first - last) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


def _registered_rate(schedule: Schedule, step: int, width: int) -> float:
    rate = schedule.rate(step, width)
    if not (math.isfinite(rate) and rate >= 0):
        raise ScheduleError(
            f"The schedule {type(schedule).__name__} returns the rate {rate} for step {step}, "
            f"expected a finite rate of at least 0: correct the schedule, or its options "
            f"{schedule!r}"
        )
    return float(rate)


def _decay_steps(schedule: ScheduleConfig) -> int:
    assert schedule.decay_until_step is not None  # checked when the recipe was loaded
    return schedule.decay_until_step - schedule.warmup_steps
