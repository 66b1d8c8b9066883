"""A pytest plugin that measures each test and fixture: `scripts/test --durations-by-file`.

It prints the seconds of each file, and `--durations-json FILE` writes those of each test and
fixture. CPU seconds are those of this process and of the children it has waited for. Ray's
processes and ranks that outlive a test are included only if pytest runs in a control group, for
example under `systemd-run --scope`. A test's seconds include those of the fixtures that it is the
first to use.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest


@dataclass
class Durations:
    """Totals of a test, a fixture or a file, in seconds."""

    times: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0


_by_test: dict[str, Durations] = defaultdict(Durations)
_by_fixture: dict[str, Durations] = defaultdict(Durations)
_by_file: dict[str, Durations] = defaultdict(Durations)
_fixtures_of_test: dict[str, list[str]] = {}


def _cpu_clock() -> Callable[[], float]:
    """Return a clock of the control group's CPU seconds, or of those of this process."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, group = line.split(":", 2)
        usage = Path(f"/sys/fs/cgroup/{controllers}{group}/cpuacct.usage")  # version 1
        if group != "/" and usage.exists():
            return lambda: int(usage.read_text()) / 1e9
        statistics = Path(f"/sys/fs/cgroup{group}/cpu.stat")  # version 2
        if group != "/" and not controllers and statistics.exists():
            return lambda: int(statistics.read_text().split()[1]) / 1e6
    return lambda: sum(os.times()[:4])


_cpu_seconds = _cpu_clock()


def _measured(*sums: Durations) -> Iterator[None]:
    """Run a hook, and add its seconds to each of the sums."""
    wall, cpu = perf_counter(), _cpu_seconds()
    try:
        return (yield)
    finally:
        wall, cpu = perf_counter() - wall, _cpu_seconds() - cpu
        for one in sums:
            one.times += 1
            one.wall_seconds += wall
            one.cpu_seconds += cpu


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the file with the seconds of each test and fixture."""
    parser.addoption("--durations-json", metavar="FILE", type=Path, help="where to write seconds")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Add a test's set-up, call and tear-down to its file."""
    _fixtures_of_test[item.nodeid] = list(getattr(item, "fixturenames", ()))
    return (yield from _measured(_by_test[item.nodeid], _by_file[item.location[0]]))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[object]:
    """Measure a fixture; those that it names as arguments have been set up before."""
    name = f"{fixturedef.baseid}::{fixturedef.argname}"
    return (yield from _measured(_by_fixture[name]))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the file of `--durations-json`."""
    if file := session.config.getoption("--durations-json"):
        tests = {
            name: asdict(sums) | {"fixtures": _fixtures_of_test[name]}
            for name, sums in _by_test.items()
        }
        fixtures = {name: asdict(sums) for name, sums in _by_fixture.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"tests": tests, "fixtures": fixtures}, indent=1))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table of files, the slowest first."""
    terminalreporter.section("seconds by file")
    terminalreporter.line(f"{'wall':>8} {'CPU':>8} {'tests':>6}  file")
    for file, sums in sorted(_by_file.items(), key=lambda pair: -pair[1].wall_seconds):
        terminalreporter.line(
            f"{sums.wall_seconds:8.1f} {sums.cpu_seconds:8.1f} {sums.times:6}  {file}"
        )
