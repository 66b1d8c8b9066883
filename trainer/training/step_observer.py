"""Whoever watches the steps of a rank: a profiler, the microscope of a replay."""

from contextlib import AbstractContextManager
from typing import Protocol


class StepObserver(Protocol):
    """An observer as the loop needs it. It changes no bit of what is computed."""

    def step(self, step: int) -> AbstractContextManager[None]:
        """A context to be open while a step is trained, which includes fetching its data."""
