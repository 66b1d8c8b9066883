"""Measure the speed of a training in its steady state, from the steps that it records."""

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
STEPS_AT_LEAST = 2  # minimum number of steps in the steady state


class Contestant(Training, Protocol):
    """Training that runs several times; `folder` is the folder of the current run."""

    def enter(self, folder: Path) -> None:
        """Create the folder of a run, with the run's settings."""

    def steps(self) -> list[Step]:
        """Return the completed steps of the current run."""


class Speed(NamedTuple):
    """Target tokens per second in the steady state of one run."""

    per_second: float
    per_cpu_second: float  # of all processes of the run; other processes hardly change it


def measure(contestant: Contestant, seconds: float, settling_seconds: float) -> Speed:
    """Return the speed of one run, which is stopped after some seconds of its steady state.

    Args:
        seconds: duration of the measurement in the steady state.
        settling_seconds: time from the first step to the steady state; see
            `record.SETTLING_SECONDS`.
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
    """Return the CPU seconds that a process and its descendants have used."""
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
            fail(
                contestant,
                f"it has completed {done} steps, expected {count}, after another "
                f"{START_SECONDS:.0f} s of waiting",
            )
        time.sleep(0.5)


def check(contestant: Contestant, driver: psutil.Process) -> None:
    if has_ended(driver):
        fail(contestant, "it ended before the measurement was complete")


def fail(contestant: Contestant, reason: str) -> None:
    output = (contestant.folder / "output.txt").read_text(errors="replace")
    sys.exit(f"{contestant.command()}: {reason}\n{output[-4000:]}")
