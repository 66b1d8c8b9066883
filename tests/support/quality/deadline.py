"""Pytest plugin for CI: start no test after a deadline, and first run tests near the change.

    TESTS_DEADLINE   seconds since the epoch
    TESTS_STATE      directory with `left-*`: ids of tests that did not run, which come first in the
                     next run; and `changed`: names of the files of the change

`.ci/run` sets the variables, and prints the tests that did not run.
"""

import os
import time
from collections.abc import Collection
from pathlib import Path, PurePosixPath

import pytest

_left: list[str] = []


def in_order(files: Collection[str], left: Collection[str], changed: Collection[str]) -> list[str]:
    """Order test files: those with tests that did not run last time, those near the change, others.

    A test file is near a change of itself, or of the module with its name in the same directory.
    """
    waiting = {name.partition("::")[0] for name in left}
    near = {mirrored(name) for name in changed} | set(changed)
    return sorted(files, key=lambda name: (name not in waiting, name not in near))


def mirrored(module: str) -> str:
    """Return the test file of a module: tests/a/test_b.py for a/b.py."""
    path = PurePosixPath(module)
    return (PurePosixPath("tests") / path.parent / f"test_{path.name}").as_posix()


def _lines(name: str) -> list[str]:
    files = _state().glob(name)
    return [line for file in files for line in file.read_text().splitlines()]


def _state() -> Path:
    return Path(os.environ["TESTS_STATE"])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; the tests of a file stay together, because they share fixtures."""
    by_file: dict[str, list[pytest.Item]] = {}
    for item in items:
        by_file.setdefault(item.location[0], []).append(item)
    order = in_order(by_file, _lines("former-left-*"), _lines("changed"))
    items[:] = [item for name in order for item in by_file[name]]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Skip a test if the deadline has passed."""
    if time.time() < float(os.environ["TESTS_DEADLINE"]):
        return None
    _left.append(item.nodeid)
    return True


def pytest_sessionfinish() -> None:
    if _left:
        (_state() / f"left-{os.getpid()}").write_text("".join(f"{name}\n" for name in _left))
