"""The step of a record in which the curve jumped most."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from data_pipeline.wording import counted
from trainer.errors import TrainerError
from trainer.step_range import StepRange
from trainer.tracking.records import TrainLine

USUAL_STEPS = 50  # whose median is usual
LEAST_STEPS = 5  # before which nothing is


@dataclass(frozen=True)
class Jump:
    """A step whose loss or gradient norm is far above what was usual before it.

    Attributes:
        what: loss or gradient norm.
        usual: the median of the steps before.
    """

    step: int
    what: str
    value: float
    usual: float

    @property
    def factor(self) -> float:
        return self.value / self.usual if self.usual > 0 else float(self.value > 0)

    def __str__(self) -> str:
        return (
            f"step {self.step}: {self.what} {self.value:.4g}, {self.factor:.1f} times the "
            f"{self.usual:.4g} that was usual before"
        )


def largest_jump(lines: Iterable[TrainLine], steps: StepRange) -> Jump:
    """The step with the largest jump of loss or gradient norm, relative to the steps before it.

    Args:
        lines: of the record, in order.
        steps: among which it is looked for.

    Raises:
        TrainerError: there are too few steps to tell what is usual.
    """
    before: deque[TrainLine] = deque(maxlen=USUAL_STEPS)
    jumps = []
    for line in lines:
        if line.step in steps and len(before) >= LEAST_STEPS:
            for what, field in (("loss", "loss"), ("gradient norm", "grad_norm")):
                usual = median(getattr(earlier, field) for earlier in before)
                jumps.append(Jump(line.step, what, getattr(line, field), usual))
        before.append(line)
    if not jumps:
        raise TrainerError(
            f"the record has {counted(len(before), 'step')}, too few to tell which is unlike the "
            f"others: it takes {LEAST_STEPS + 1}. Name steps with --steps A:B"
        )
    return max(jumps, key=lambda jump: jump.factor)
