"""Find the recorded step at which the loss or the gradient norm jumped most.

A jump is a value far above the median of the few preceding steps. It is measured on a logarithmic
scale, in multiples of the usual deviation from that median. Gradient norms usually deviate more
than losses. A loss that rises by 30 % is therefore a larger jump than a gradient norm that rises by
30 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from run_store.errors import RunError
from run_store.folder import StepRange
from run_store.record.metrics_lines import TrainLine

# The usual value of a step is the median of this number of preceding steps. It is small, because a
# loss falls during training.
STEPS_BEFORE = 5
SMALLEST = 1e-30  # smaller values are raised to this one before taking the logarithm
MIN_SPREAD = 0.01  # lower limit of the usual deviation (1 %), for very smooth curves


@dataclass(frozen=True)
class Jump:
    """A step whose loss or gradient norm is above its usual value.

    Attributes:
        what: "loss" or "gradient norm".
        value: the loss or gradient norm of the step.
        usual: the median of the preceding steps.
        spreads: the distance of `value` from `usual` on a logarithmic scale, as a multiple of the
            usual distance.
    """

    step: int
    what: str
    value: float
    usual: float
    spreads: float

    def __str__(self) -> str:
        return (
            f"step {self.step}: {self.what} {self.value:.4g}, after {self.usual:.4g} in the steps "
            f"before, {self.spreads:.0f} times the usual deviation"
        )


def largest_jump(lines: Sequence[TrainLine], steps: StepRange) -> Jump:
    """Return the step with the largest jump of loss or gradient norm.

    Args:
        lines: training lines of the whole metrics file, in order.
        steps: range of steps to search.

    Raises:
        RunError: all of these steps have too few preceding steps to determine a usual value.
    """
    jumps = [
        jump
        for what, field in (("loss", "loss"), ("gradient norm", "grad_norm"))
        for jump in _jumps(what, [(line.step, getattr(line, field)) for line in lines])
        if jump.step in steps
    ]
    if not jumps:
        raise RunError(
            f"No jump can be found in steps {steps}: none of them has {STEPS_BEFORE} recorded "
            "steps before it. Name the step to replay with --steps"
        )
    return max(jumps, key=lambda jump: jump.spreads)


def _jumps(what: str, values: Sequence[tuple[int, float]]) -> list[Jump]:
    """Return a `Jump` for each step that has enough preceding steps, even if the jump is small."""
    usual = [
        median(value for _, value in values[place - STEPS_BEFORE : place])
        for place in range(STEPS_BEFORE, len(values))
    ]
    later = values[STEPS_BEFORE:]
    above = [
        math.log(max(value, SMALLEST)) - math.log(max(before, SMALLEST))
        for (_, value), before in zip(later, usual, strict=True)
    ]
    if not above:
        return []
    trend = median(above)  # negative for a falling loss
    spread = max(MIN_SPREAD, median(abs(logarithm - trend) for logarithm in above))
    return [
        Jump(step, what, value, before, (logarithm - trend) / spread)
        for (step, value), before, logarithm in zip(later, usual, above, strict=True)
    ]
