"""Record CPU time and peak memory of rank 0: an observer that a recipe may name.

    extensions: [step_cost]
    callbacks:
      - {type: step_cost, options: {every: 10}}

The line of every tenth step then has `observed: {step_cost/cpu_seconds: …, …}`.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundation.section import execution
from trainer.registries.callbacks import CALLBACKS, ObservedStep, ObserverKind, StepObserver


class StepCostObserver(StepObserver):
    """Observer that measures the process of its rank."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._started = 0.0

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        self._started = time.process_time()
        yield

    def after_step(self, view: ObservedStep) -> dict[str, float]:
        if view.step % self._every:
            return {}
        return {
            "cpu_seconds": time.process_time() - self._started,
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        }


class StepCost(ObserverKind):
    """Settings of the observer."""

    every: int = execution(1, "Steps between two measurements.", gt=0)

    def build(self, rank: int, run: Path) -> StepObserver:
        return StepCostObserver(self.every)


CALLBACKS.register("step_cost", StepCost)
