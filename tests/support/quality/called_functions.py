"""A pytest plugin that records for `scripts/mutants --sample` which functions a test file calls.

    scripts/test -p support.quality.called_functions

Each pytest process writes a file in build/called. Calls in other processes are not recorded, and a
fixture of the session counts for the file that is the first to use it.
"""

import json
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

import pytest

from support.quality.imported_files import PACKAGES

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path("build", "called")

_called: dict[str, dict[int, CodeType]] = defaultdict(dict)  # by test file, then by the code's id


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    codes = _called[item.location[0]]

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            codes[id(frame.f_code)] = frame.f_code

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        return (yield)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def pytest_sessionfinish() -> None:
    tests: dict[str, list[str]] = defaultdict(list)  # by "FILE:FUNCTION"
    for test, codes in _called.items():
        for code in codes.values():
            path = Path(code.co_filename)
            if any(path.is_relative_to(ROOT / package) for package in PACKAGES):
                tests[f"{path.relative_to(ROOT)}:{code.co_qualname}"].append(test)
    file = ROOT / FOLDER / f"{os.getpid()}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(tests))


@cache
def recorded_callers(root: Path) -> dict[str, set[str]]:
    """Return the test files by "FILE:FUNCTION", as recorded in build/called."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in (root / FOLDER).glob("*.json"):
        for function, tests in json.loads(file.read_text()).items():
            found[function] |= set(tests)
    return found
