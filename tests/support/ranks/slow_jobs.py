"""Jobs for a `RankPool` that train a real run in which a rank computes or gets data slowly."""

import mmap
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from support.cluster.processes import wait_until
from support.ranks.engine_jobs import (
    LEARNING_RATE,
    SLOTS,
    VOCABULARY,
    Shape,
    make_engine,
    micro_batch,
)
from support.ranks.spike_jobs import Supervisor, local_rank
from trainer.process.placement import Placement
from trainer.recipe import TrainingRecipe
from trainer.tasks.batch import to_device
from trainer.training import loop, slow_ranks

# Simulated seconds of each pass, in addition to the CPU time, which varies by milliseconds on a
# busy machine.
USUAL_SECONDS = 0.2
SLOTS_OF_A_RANK = 2  # minimum
_MOMENT = struct.Struct("d")


@dataclass(frozen=True)
class Delay:
    """Cause of a delay, and the steps of a rank with the delay.

    Attributes:
        cause: "compute" or "data".
        factor: duration of each pass with the delay, as a multiple of `USUAL_SECONDS`.
    """

    rank: int
    cause: str
    factor: float
    first: int
    last: int

    def seconds(self, placement: Placement, step: int, cause: str) -> float:
        """Return a rank's additional seconds for a cause, in a pass."""
        hits = placement.rank == self.rank and cause == self.cause
        within = self.first <= step <= self.last
        return (self.factor - 1) * USUAL_SECONDS if hits and within else 0.0

    def seconds_of_step(self) -> float:
        """Return the additional seconds of a whole step of the rank."""
        return SLOTS_OF_A_RANK * (self.factor - 1) * USUAL_SECONDS


class WorkClock:
    """Clock that counts the CPU time of the training thread, and simulated delays.

    It is independent of the machine's load.
    """

    def __init__(self) -> None:
        self.delays = 0.0

    def now(self) -> float:
        return time.thread_time() + self.delays

    def seconds(self, start: float, end: float) -> float:
        return end - start


def train_run(
    placement: Placement,
    recipe: TrainingRecipe,
    run: Path,
    delays: Sequence[Delay],
    window: int,
) -> None:
    """Train a run whose detector compares `window` steps, with the times of a `WorkClock`."""
    clock = WorkClock()

    def longer(step: int, cause: str) -> float:
        return sum(delay.seconds(placement, step, cause) for delay in delays)

    def delay_data(step: int) -> None:
        clock.delays += SLOTS_OF_A_RANK * longer(step, "data")

    placement = replace(
        placement, node_names=tuple(f"node-{rank}" for rank in range(placement.world_size))
    )
    times = SimpleNamespace(monotonic=clock.now, time=time.time)
    with (
        patch.object(slow_ranks, "WINDOW", window),
        patch.object(loop, "time", times),
        local_rank(placement, recipe, run, Supervisor(), delay_data) as trainer,
    ):

        def delay_pass(*_: Any) -> None:
            clock.delays += USUAL_SECONDS + longer(trainer.progress.step + 1, "compute")

        trainer.engine.timer._clock = clock
        trainer.engine.module.register_forward_pre_hook(delay_pass)
        trainer.train()


class SharedClock:
    """Clock shared by all ranks of this machine, which stands still unless a rank advances it."""

    def __init__(self, file: Path) -> None:
        """Open the clock in a file, which is created with the time 0."""
        with file.open("a+b") as opened:
            if opened.tell() < _MOMENT.size:
                opened.truncate(_MOMENT.size)
            self._moment = mmap.mmap(opened.fileno(), _MOMENT.size)

    def now(self) -> float:
        moment: float = _MOMENT.unpack_from(self._moment)[0]
        return moment

    def advance(self, seconds: float) -> None:
        _MOMENT.pack_into(self._moment, 0, self.now() + seconds)

    def seconds(self, start: float, end: float) -> float:
        return end - start


def times_of_steps(
    placement: Placement, shape: Shape, slow_rank: int, seconds: float, folder: Path
) -> tuple[float, float]:
    """Train two steps of two ranks, one of which is slow in the second; return the timer's result.

    The result has, for the second step, the sum of the compute times of the passes, and the wait.
    The slow rank computes until the other one waits for it, and then for `seconds` of a
    `SharedClock`.
    """
    engine = make_engine(placement, shape)
    clock = engine.timer._clock = SharedClock(folder / "clock")
    units = sum(micro_batch(1, slot).tokens("tgt") for slot in range(SLOTS))
    measured_wait = engine.timer.wait

    @contextmanager
    def wait() -> Iterator[None]:
        with measured_wait():
            (folder / f"rank {placement.rank} waits in step {step}").touch()
            yield

    engine.timer.wait = wait  # type: ignore[method-assign]
    for step in range(2):
        with engine.timer.step():
            for index in range(engine.slots_per_rank):
                with engine.timer.compute():
                    if step and index == 0 and placement.rank == slow_rank:
                        wait_until((folder / f"rank {1 - slow_rank} waits in step {step}").exists)
                        clock.advance(seconds)
                    batch = to_device(micro_batch(1, index), VOCABULARY, torch.device("cpu"))
                    engine.forward_backward(
                        batch,
                        units_global=units,
                        is_accumulation_boundary=index == engine.slots_per_rank - 1,
                        is_dummy=False,
                    )
            taken = engine.timer.take()
            engine.step(LEARNING_RATE)
        assert len(taken.compute) == engine.slots_per_rank
        engine.timer.take()  # the wait during the optimizer update
    with engine.timer.compute(), engine.timer.wait():  # waits outside of a step
        pass
    assert engine.timer.take() == ([], 0)
    engine.destroy()
    return sum(taken.compute), taken.wait
