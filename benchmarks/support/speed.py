"""Measure the speed of a training in its steady state, from the steps that it records."""

import time
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil

from benchmarks.support.cpu import cpu_by_process
from benchmarks.support.record import Step, tokens_per_second
from benchmarks.support.trainings import Training, exit_with_output, has_ended, running, wait_for

START_SECONDS = 300.0
STOP_SECONDS = 60.0
STEPS_AT_LEAST = 2  # minimum number of steps in the steady state
QUIET_SECONDS = 5.0
QUIET_CORES = 0.15  # maximum CPU time of all processes except the busiest, as a share of a core


class Contestant(Training, Protocol):
    """Training that runs several times; `folder` is the folder of the current run."""

    def enter(self, folder: Path) -> None:
        """Create the folder of a run, with the run's settings."""

    def steps(self) -> list[Step]:
        """Return the completed steps of the current run."""


class Speed(NamedTuple):
    """Speed of one run in its steady state, in target tokens per second, and its number of steps.

    CPU time depends little on other work on the machine. The trainer is the process with the most
    CPU time: with transloom a rank, without the driver, the data worker and Ray.
    """

    per_second: float
    per_cpu_second: float  # CPU seconds of all processes of the run
    per_cpu_second_of_trainer: float
    steps: int


def measure(contestant: Contestant, seconds: float, settling_seconds: float) -> Speed:
    """Return the speed of one run, which is stopped after some seconds of its steady state.

    Args:
        seconds: duration of the measurement in the steady state.
        settling_seconds: minimum time from the first step to the steady state; see `settle`.
    """
    with running(contestant, cwd=contestant.folder, grace_seconds=STOP_SECONDS) as driver:
        wait_for_steps(1, contestant, driver)
        settle(contestant, driver, settling_seconds)
        start, cpu_before, before = time.time(), cpu_by_process(driver), len(contestant.steps())
        wait_until(start + seconds, contestant, driver)
        wait_for_steps(before + STEPS_AT_LEAST, contestant, driver)
        cpu_after, steps = cpu_by_process(driver), contestant.steps()
    used = [after - cpu_before.get(process, 0.0) for process, after in cpu_after.items()]
    measured = steps[before:]
    tokens = sum(step.target_tokens for step in measured)
    per_second = tokens_per_second(steps, start - steps[0].time)
    return Speed(per_second, tokens / sum(used), tokens / max(used), len(measured))


def settle(contestant: Contestant, driver: psutil.Process, seconds: float) -> None:
    """Wait until only one process of a run is busy, at least `seconds`, at most 12 times as long.

    Otherwise, processes at the start, such as the imports of the spare rank, would count as costs
    of training.
    """
    start = time.time()
    wait_until(start + seconds, contestant, driver)
    while time.time() < start + 12 * seconds:
        before, since = cpu_by_process(driver), time.time()
        wait_until(since + QUIET_SECONDS, contestant, driver)
        after, elapsed = cpu_by_process(driver), time.time() - since
        *others, _ = sorted(cpu - before.get(process, 0.0) for process, cpu in after.items())
        if sum(others) < QUIET_CORES * elapsed:
            break


def wait_until(end: float, contestant: Contestant, driver: psutil.Process) -> None:
    while (left := end - time.time()) > 0:
        time.sleep(min(1.0, left))
        if has_ended(driver):
            exit_with_output(contestant, "it ended before the measurement was complete")


def wait_for_steps(count: int, contestant: Contestant, driver: psutil.Process) -> None:
    steps = f"{count} completed steps"
    wait_for(steps, lambda: len(contestant.steps()) >= count, contestant, driver, START_SECONDS)
