"""Train a few steps with one rank in this process, in a scratch folder, as a replay does.

recipe, dataset ──▶ train_inline, without validations and checkpoints ──▶ lines, peak memory

This module imports torch and DeepSpeed.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from cluster.planning.speed import Speed, speed_of
from cluster.recipe import Recipe
from cluster.supervision.inline import train_inline
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from run_store.folder import RunFolder
from run_store.record.metrics_lines import Line, TrainLine
from run_store.record.vitals import Vitals
from trainer.errors import MemoryPreflightError
from trainer.job.rank_job import ReplayOptions
from trainer.memory.device_memory import is_out_of_memory
from trainer.process import host_memory

WARM_UP_STEPS = 2
LEAST_STEPS, MOST_STEPS = 3, 30  # limits on the number of measured steps
MAX_MEASURED_SECONDS = 10.0
NEVER = 10**9


@dataclass(frozen=True)
class Measurement:
    """Speed and memory of a few steps of one rank.

    Attributes:
        peak_bytes: peak memory of the process or, with a GPU, of the device.
    """

    speed: Speed
    device: str
    peak_bytes: int


class _MeasuringListener:
    """Listener that keeps the lines of steps, and stops the run after enough of them."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.lines: list[TrainLine] = []
        self._stop = stop
        self._since = time.monotonic()

    def notice(self, text: str) -> None:
        pass

    def logging(self) -> AbstractContextManager[object]:
        return nullcontext()

    def log_detail(self, text: str) -> None:
        pass

    def vitals(self, vitals: Vitals) -> None:
        pass

    def line(self, line: Line) -> None:
        if isinstance(line, TrainLine):
            self.lines.append(line)
            if len(self.lines) == WARM_UP_STEPS:
                self._since = time.monotonic()
            is_late = time.monotonic() - self._since > MAX_MEASURED_SECONDS
            if len(self.lines) >= WARM_UP_STEPS + (LEAST_STEPS if is_late else MOST_STEPS):
                self._stop()


def can_measure(recipe: Recipe) -> str | None:
    """Return the reason why this machine cannot train a step of the recipe, or None if it can."""
    if recipe.cluster.gpus_per_rank and not torch.cuda.is_available():
        return "its ranks need GPUs, but torch finds no GPU on this machine"
    return None


def measure(recipe: Recipe, store: DatasetStore, manifest: Manifest) -> Measurement:
    """Train a few steps from random weights, with one rank in this process.

    Raises:
        MemoryPreflightError: a step does not fit into memory.
    """
    host_memory.restart_peak()
    with tempfile.TemporaryDirectory(prefix="transloom-plan-") as name:
        run = RunFolder(Path(name) / "run")
        listener = _MeasuringListener(run.ask_to_stop)
        try:
            train_inline(
                _endless(recipe), run, store, manifest, listener, None, ReplayOptions(Path(name))
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryPreflightError(
                f"A step does not fit into the memory of this machine: {error}. Lower "
                "batching.max_tokens_per_micro_batch; this requires a new run"
            ) from error
    speed = speed_of(listener.lines[WARM_UP_STEPS:][::-1], "a few steps of one rank here")
    assert speed is not None
    if recipe.cluster.gpus_per_rank:
        return Measurement(speed, "cuda", int(torch.cuda.max_memory_reserved()))
    return Measurement(speed, "cpu", host_memory.peak_resident_bytes())


def _endless(recipe: Recipe) -> Recipe:
    """Return the recipe with endless steps, without checkpoints, warm start and W&B."""
    return recipe.with_values(
        trainer={"max_steps": NEVER, "init_from": None, "early_stopping": None},
        checkpoints={"every_steps": NEVER, "memory_every_steps": 0},
        tracking={"wandb": "disabled"},
    )
