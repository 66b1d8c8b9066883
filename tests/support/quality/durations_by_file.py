"""A pytest plugin that prints the seconds of each test file: `scripts/test --durations-by-file`.

CPU seconds are those of this process and of the children it has waited for. Ray's processes and
ranks that outlive a test are not in them.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import pytest


@dataclass
class FileDurations:
    """Totals of one test file, in seconds."""

    tests: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0


_by_file: dict[str, FileDurations] = defaultdict(FileDurations)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Add a test's set-up, call and tear-down to its file."""
    wall, cpu = perf_counter(), _cpu_seconds()
    try:
        return (yield)
    finally:
        durations = _by_file[item.location[0]]
        durations.tests += 1
        durations.wall_seconds += perf_counter() - wall
        durations.cpu_seconds += _cpu_seconds() - cpu


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table, the slowest file first."""
    terminalreporter.section("seconds by file")
    terminalreporter.line(f"{'wall':>8} {'CPU':>8} {'tests':>6}  file")
    for file, sums in sorted(_by_file.items(), key=lambda pair: -pair[1].wall_seconds):
        terminalreporter.line(
            f"{sums.wall_seconds:8.1f} {sums.cpu_seconds:8.1f} {sums.tests:6}  {file}"
        )
