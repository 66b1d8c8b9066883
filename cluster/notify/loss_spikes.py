"""Detection of loss spikes, from the losses of applied steps.

::

    … │ BEFORE steps: median m, spread s │ RECENT steps: median r │
    spike  ⟺  r > m + max(SPREADS · s, SHARE · |m|)

The spread is the median absolute deviation, scaled to the standard deviation of a normal
distribution. Medians ignore a few batches with an unusual loss.

`trainer.spike_guard` judges single steps before they are applied; this detector judges whether a
high loss lasts. In the recorded trainings of benchmarks/multi30k (41,135 steps), r - m is at most
2.1 spreads.
"""

import math
from collections import deque
from statistics import median
from typing import NamedTuple

from trainer.config import DEVIATION_PER_MAD

BEFORE = 100
BEFORE_AT_LEAST = 50
RECENT = 9
SPREADS = 2.5
SHARE = 0.1


class LossSpike(NamedTuple):
    """Spike: the median of the recent losses, and the median before."""

    loss: float
    before: float


class LossSpikeDetector:
    """Detector of the beginning of each spike; it reads the loss of every applied step."""

    def __init__(self) -> None:
        self._before: deque[float] = deque(maxlen=BEFORE)
        self._recent: deque[float] = deque()

    def reset(self) -> None:
        """Forget all losses, because training repeats earlier steps."""
        self._before.clear()
        self._recent.clear()

    def add(self, loss: float) -> LossSpike | None:
        """Add the loss of the next step; return a spike if it begins with this step.

        After a spike, the detector starts over, so a loss that stays high is one spike.
        """
        if not math.isfinite(loss):
            return None
        self._recent.append(loss)
        if len(self._recent) > RECENT:
            self._before.append(self._recent.popleft())
        if len(self._before) < BEFORE_AT_LEAST:
            return None
        before, recent = median(self._before), median(self._recent)
        if recent <= before + SHARE * abs(before):
            return None
        spread = DEVIATION_PER_MAD * median(abs(loss - before) for loss in self._before)
        if recent <= before + SPREADS * spread:
            return None
        self.reset()
        return LossSpike(recent, before)
