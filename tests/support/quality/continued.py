"""A pytest plugin with which a target of hours continues where it stopped.

`--continued FILE` keeps the tests that have passed, with their seconds, and leaves them out of the
next run. Its name says of which code it is.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


class Continued:
    """The tests of a file, those of this run included; a test is named with its selection."""

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
        """Say how many tests this run leaves out."""
        if self.left_out:
            minutes = sum(self.passed.values()) / 60
            terminalreporter.line(f"{self.left_out} passed before, in {minutes:.1f} minutes")

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """Count it as a success if no test was left to run."""
        if self.left_out and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
        return (yield)

    def _name(self, test: str) -> str:
        return f"{self._selection}: {test}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the file of passed tests."""
    parser.addoption("--continued", metavar="FILE", type=Path, help="where passed tests are kept")


def pytest_configure(config: pytest.Config) -> None:
    """Keep passed tests if a file is named."""
    if file := config.getoption("--continued"):
        os.environ.pop("PYTEST_ADDOPTS", None)  # tests that run pytest have other ones
        selection = config.getoption("markexpr")
        config.pluginmanager.register(Continued(file, selection), "continued")
