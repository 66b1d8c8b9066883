"""Bounds within which rounding explains that a replayed step differs from its record.

Where bits are not promised, rounding makes the first small difference, and training amplifies it
step by step. So each step is held to the largest difference of the steps before it, times
`MOST_GROWTH`. A record that somebody has changed jumps instead. Measured growth is in
benchmarks/README.md.
"""

from collections.abc import Collection

from trainer.record.metrics import REPLAY_TOLERANCE
from trainer.record.records import StepLine

# A gradient norm is a sum of squares in which little averages out.
AT_FIRST = {"loss": REPLAY_TOLERANCE, "nll": REPLAY_TOLERANCE, "grad_norm": 10 * REPLAY_TOLERANCE}
MOST_GROWTH = 100.0
# Measured losses drift up to 4 % apart; an NLL near 0 and a gradient norm may lose all likeness.
LARGEST = {"loss": 0.1, "nll": 1.0, "grad_norm": 1.0}


class RoundingBounds:
    """Relative differences that the next step of a replay may have, by the field of its line."""

    def __init__(self) -> None:
        self.by_field = dict(AT_FIRST)

    def add(self, recorded: StepLine, replayed: StepLine, unknown: Collection[str]) -> None:
        """Widen the bounds by what a step within them has shown.

        Args:
            unknown: fields that the record does not tell of this step.
        """
        for field in AT_FIRST.keys() - unknown:
            then, now = (getattr(line, field, None) for line in (recorded, replayed))
            if then is not None and now is not None and then != now:
                grown = MOST_GROWTH * abs(then - now) / max(abs(then), abs(now))
                self.by_field[field] = min(max(self.by_field[field], grown), LARGEST[field])
