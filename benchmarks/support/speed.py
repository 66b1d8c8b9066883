"""The speed of a training in its steady state, watched from outside through its record."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil

from benchmarks.support.record import Step, tokens_per_second
from benchmarks.support.trainings import Training, has_ended, running

START_SECONDS = 300.0
STOP_SECONDS = 60.0
STEPS_AT_LEAST = 2  # of the steady state


class Contestant(Training, Protocol):
    """A training that is run again and again; `folder` is that of the current run."""

    def enter(self, folder: Path) -> None:
        """Makes the folder of a run, with its settings."""

    def steps(self) -> list[Step]:
        """The steps that have ended."""


class Speed(NamedTuple):
    """Target tokens of the steady state of one run."""

    per_second: float
    per_cpu_second: float  # of all its processes: others on the machine hardly change it


def measure(contestant: Contestant, seconds: float, settling_seconds: float) -> Speed:
    """Return the speed of one run, which is stopped after some seconds of its steady state.

    Args:
        settling_seconds: from the first step to the steady state. See `record.SETTLING_SECONDS`.
    """
    with running(contestant, cwd=contestant.folder, grace_seconds=STOP_SECONDS) as driver:
        wait_for_steps(1, contestant, driver)
        start = contestant.steps()[0].time + settling_seconds
        wait_until(start, contestant, driver)
        cpu_before, before = cpu_seconds(driver), len(contestant.steps())
        wait_until(start + seconds, contestant, driver)
        wait_for_steps(before + STEPS_AT_LEAST, contestant, driver)
        cpu_used, steps = cpu_seconds(driver) - cpu_before, contestant.steps()
    tokens = sum(step.target_tokens for step in steps[before:])
    return Speed(tokens_per_second(steps, settling_seconds), tokens / cpu_used)


def wait_until(end: float, contestant: Contestant, driver: psutil.Process) -> None:
    while (left := end - time.time()) > 0:
        time.sleep(min(1.0, left))
        check(contestant, driver)


def cpu_seconds(driver: psutil.Process) -> float:
    """CPU seconds that the process and all that it started have used."""
    used = 0.0
    for process in [driver, *driver.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used += times.user + times.system
    return used


def wait_for_steps(count: int, contestant: Contestant, driver: psutil.Process) -> None:
    deadline = time.monotonic() + START_SECONDS
    while (done := len(contestant.steps())) < count:
        check(contestant, driver)
        if time.monotonic() > deadline:
            fail(contestant, f"{done} steps after {START_SECONDS:.0f} s more, {count} expected")
        time.sleep(0.5)


def check(contestant: Contestant, driver: psutil.Process) -> None:
    if has_ended(driver):
        fail(contestant, "it ended by itself")


def fail(contestant: Contestant, reason: str) -> None:
    output = (contestant.folder / "output.txt").read_text(errors="replace")
    sys.exit(f"{contestant.command()}: {reason}\n{output[-4000:]}")
