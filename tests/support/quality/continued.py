"""Pytest plugin with which a target that takes hours continues after an interruption.

`--continued FILE` stores the tests that have passed, with their seconds, and skips them in the next
run. The file's name identifies the version of the code.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


class Continued:
    """Passed tests in a file, including those of this run; an id contains the selection `-m`."""

    def __init__(self, file: Path, selection: str) -> None:
        self._file = file
        self._selection = selection
        self._seconds: dict[str, float] = {}
        self._not_passed: set[str] = set()
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self.passed = {name: float(seconds) for seconds, name in (x.split(" ", 1) for x in lines)}
        self.left_out = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Deselect tests that have passed before."""
        before = [item for item in items if self._name(item.nodeid) in self.passed]
        self.left_out = len(before)
        config.hook.pytest_deselected(items=before)
        items[:] = [item for item in items if self._name(item.nodeid) not in self.passed]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a test once its tear-down has passed, too."""
        test = report.nodeid
        self._seconds[test] = self._seconds.get(test, 0.0) + report.duration
        if not report.passed:
            self._not_passed.add(test)
        if report.when == "teardown" and test not in self._not_passed:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"{self._seconds[test]:.1f} {self._name(test)}\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the number of tests that this run has skipped."""
        if self.left_out:
            minutes = sum(self.passed.values()) / 60
            terminalreporter.line(f"{self.left_out} passed before, in {minutes:.1f} minutes")

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """Exit with success if all tests had passed before."""
        if self.left_out and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
        return (yield)

    def _name(self, test: str) -> str:
        return f"{self._selection}: {test}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the file of passed tests."""
    parser.addoption("--continued", metavar="FILE", type=Path, help="where passed tests are kept")


def pytest_configure(config: pytest.Config) -> None:
    """Store passed tests if a file is named."""
    if file := config.getoption("--continued"):
        os.environ.pop("PYTEST_ADDOPTS", None)  # tests that run pytest use other options
        selection = config.getoption("markexpr")
        config.pluginmanager.register(Continued(file, selection), "continued")
