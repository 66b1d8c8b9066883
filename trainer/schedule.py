"""Learning rates as pure functions of the step, so that a resumed run needs no scheduler state."""

from trainer.config import ScheduleConfig


def learning_rate(schedule: ScheduleConfig, step: int, width: int) -> float:
    """The learning rate of optimizer step ``step`` (the first step is 1).

    ``paper``: Vaswani et al. 2017, §5.3, eq. 3, times ``scale``::

        width^-0.5 · min(step^-0.5, step · warmup_steps^-1.5)

    ``inverse_square_root``: linear from ``initial_learning_rate`` to ``peak_learning_rate`` over
    ``warmup_steps``, then ``peak · (warmup_steps / step)^0.5`` (as in fairseq, Ott et al. 2018).

    ``constant``: the same warm-up, then ``peak_learning_rate``.
    """
    assert step >= 1
    warmup = schedule.warmup_steps
    if schedule.type == "paper":
        return float(schedule.scale * width**-0.5 * min(step**-0.5, step * warmup**-1.5))
    peak = schedule.peak_learning_rate
    assert peak is not None  # checked when the recipe was loaded
    if step < warmup:
        start = schedule.initial_learning_rate
        return start + (peak - start) * step / warmup
    if schedule.type == "constant":
        return peak
    return float(peak * (max(warmup, 1) / step) ** 0.5)
