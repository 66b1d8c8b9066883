"""Torch's profile of some training steps of each rank, for `transloom train … --profile A:B`.

    runs/NAME/profile/steps-A-B/rank-0.json.gz   a trace, for ui.perfetto.dev or chrome://tracing

The profiler only observes: losses, weights and data are bit for bit the same with and without it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch

from run_store.folder import RunFolder, StepRange, profile_folder
from trainer.registries.callbacks import StepObserver


class StepProfiler(StepObserver):
    """Profiler of the requested steps of one rank, if any.

    The trace also has the work between these steps, such as a validation. If the rank stops before
    the last requested step, the trace ends where the rank stopped. If the rank is killed, no trace
    is written. An existing trace is kept, and the new one is named `rank-0.2.json.gz`.
    """

    def __init__(
        self, steps: StepRange | None, run: RunFolder, rank: int, notice: Callable[[str], None]
    ) -> None:
        self._steps = steps
        self._run = run
        self._rank = rank
        self._notice = notice
        self._profiler: torch.profiler.profile | None = None

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Profile the step within this context, if it is one of the requested steps."""
        if self._steps is None or step not in self._steps:
            yield
            return
        self._profiler = self._profiler or self._started()
        with torch.profiler.record_function(f"step {step}"):
            yield
        if step == self._steps.last:
            self.close()

    def close(self) -> None:
        """Write the recorded trace."""
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        assert self._steps is not None
        folder = profile_folder(self._run, self._steps)
        try:
            self._write(profiler, folder)
        except (OSError, RuntimeError) as error:  # a full disk must not end a run
            self._notice(f"the profile of steps {self._steps} cannot be saved: {error}")
        else:
            if self._rank == 0:
                self._notice(f"the profile of steps {self._steps} is in {folder}")

    def _started(self) -> torch.profiler.profile:
        profiler = torch.profiler.profile(activities=torch.profiler.supported_activities())
        profiler.start()
        return profiler

    def _write(self, profiler: torch.profiler.profile, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        names = (f"rank-{self._rank}{'' if n == 1 else f'.{n}'}.json.gz" for n in count(1))
        path = next(folder / name for name in names if not (folder / name).exists())
        partial = folder / f".{path.name}"  # the suffix .gz makes torch compress it
        profiler.export_chrome_trace(str(partial))
        partial.rename(path)
