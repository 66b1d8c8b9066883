"""Timer of a step: the seconds in which a rank computes, and waits for other ranks.

::

    │ data │ pass      │ pass              │ exchange │ update         │
    │      │ compute   │ compute ░░ wait   │ ░░ wait  │        ░░ wait │

A rank waits in collectives: the sums of gradients, the parts of the weights that ZeRO gathers, and
the exchange. The time of a pass without the waits inside it is compute time. A collective takes as
long as its slowest rank needs to reach it, so only the compute time tells ranks apart.

CPU     A clock of the host. gloo blocks the thread that trains until the collective is complete.
CUDA    Events of the stream, because the host only enqueues the work. A pass lasts from its first
        kernel to its last one, with gaps in which the GPU waits for the host. A wait is the time
        for which a collective blocks the stream. Nothing is synchronised for it: `take` is called
        after the exchange has copied the losses to the host. By then, these events are complete.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch

from trainer.process.placement import Placement


class StepSeconds(NamedTuple):
    """Times of this rank since the last `take`.

    Attributes:
        compute: the seconds of each pass, without waits.
        wait: the seconds in collectives.
    """

    compute: list[float]
    wait: float


class _Clock(Protocol):
    def now(self) -> Any:
        """Return a mark of the current time."""

    def seconds(self, start: Any, end: Any) -> float:
        """Return the seconds between two marks."""


class _HostClock:
    def now(self) -> float:
        return time.monotonic()

    def seconds(self, start: float, end: float) -> float:
        return end - start


class _StreamClock:
    """Clock of the current CUDA stream; its marks are events."""

    def now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        # An event of another stream may still be pending. Leave out its time instead of waiting for
        # it.
        if not (start.query() and end.query()):
            return 0.0
        return float(start.elapsed_time(end)) / 1000


class StepTimer:
    """Timer of the passes and collectives of one rank.

    The timer measures only within the context `step`, so validations and checkpoints are excluded.
    With one rank, it measures nothing.
    """

    def __init__(self, placement: Placement) -> None:
        """Create a timer that does not measure yet.

        Args:
            placement: the device of the rank, and the number of ranks.
        """
        self._is_needed = placement.world_size > 1
        self._clock: _Clock = _StreamClock() if placement.device == "cuda" else _HostClock()
        self._is_on = False
        self._is_waiting = False
        self._is_interrupted = False
        self._waits: list[tuple[Any, Any]] = []
        # Start and end of each pass, and the number of waits before its start and before its end.
        self._passes: list[tuple[Any, Any, int, int]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure passes and collectives within the context."""
        self._is_on = self._is_needed
        try:
            yield
        finally:
            self._is_on = False

    @contextmanager
    def compute(self) -> Iterator[None]:
        """Measure a pass, whose collectives are within the context, too."""
        if not self._is_on:
            yield
            return
        waits, start = len(self._waits), self._clock.now()
        yield
        self._passes.append((start, self._clock.now(), waits, len(self._waits)))

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Measure a collective; a nested collective is part of the outer one."""
        if not self._is_on or self._is_waiting:
            yield
            return
        self._is_waiting, start = True, self._clock.now()
        try:
            yield
        finally:
            self._is_waiting = False
        self._waits.append((start, self._clock.now()))

    def interrupt(self) -> None:
        """Record that other work, such as a checkpoint before the step, affects its times."""
        self._is_interrupted = True

    def take_interruption(self) -> bool:
        """Return whether `interrupt` was called since the last call of this method."""
        is_interrupted, self._is_interrupted = self._is_interrupted, False
        return is_interrupted

    def take(self) -> StepSeconds:
        """Return the times since the last call, and forget them.

        On CUDA, call it after a copy from the device to the host, which has waited for the passes.
        """
        waits = [self._clock.seconds(start, end) for start, end in self._waits]
        compute = [
            max(0.0, self._clock.seconds(start, end) - sum(waits[before:after]))
            for start, end, before, after in self._passes
        ]
        self._waits.clear()
        self._passes.clear()
        return StepSeconds(compute, sum(waits))
