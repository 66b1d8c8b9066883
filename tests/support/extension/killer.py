"""Observer that kills its process, or raises an error, once per run, between two steps."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundation.section import REQUIRED, execution
from trainer.registries.callbacks import CALLBACKS, ObserverKind, StepObserver


class KillerObserver(StepObserver):
    def __init__(self, settings: "Killer", rank: int, run: Path) -> None:
        self._settings = settings
        self._is_here = rank == settings.rank
        self._mark = run / "killed"

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        yield
        if step == self._settings.step and self._is_here and not self._mark.exists():
            self._mark.touch()
            if self._settings.raises:
                raise ValueError("an observer's own mistake")
            os.kill(os.getpid(), signal.SIGKILL)


class Killer(ObserverKind):
    step: int = execution(REQUIRED, "The step after which it strikes.", gt=0)
    rank: int = execution(0, "The rank that it strikes.", ge=0)
    raises: bool = execution(False, "Raise an exception instead.")

    def build(self, rank: int, run: Path) -> StepObserver:
        return KillerObserver(self, rank, run)


CALLBACKS.register("killer", Killer)
