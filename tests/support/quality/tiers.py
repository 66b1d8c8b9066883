"""A pytest plugin that compares the collected tests with tests/tiers.json.

The file has the number of tests per target and test file, so that a change which takes tests out of
`make test` or CI is seen in review. `scripts/test` loads this plugin, whose check costs nothing
because it uses the tests that pytest collects anyway; `scripts/tiers` writes the file.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from support.quality.targets import TARGETS, targets_of

FILE = Path(__file__).resolve().parents[2] / "tiers.json"
Tiers = dict[str, dict[str, int]]  # number of tests by target and file


def tiers_of(items: Iterable[pytest.Item]) -> Tiers:
    """Count the tests of each target by file."""
    counts = Counter(
        (targets_of({mark.name for mark in item.iter_markers()})[0], item.location[0])
        for item in items
    )
    return {
        target: {file: count for (name, file), count in sorted(counts.items()) if name == target}
        for target in TARGETS
    }


def differences(found: Tiers, committed: Tiers) -> list[str]:
    """Describe the files whose collected tests differ from those in tests/tiers.json.

    Files without collected tests are skipped, because a process can collect a part of the tests.
    """
    files = {file for counts in found.values() for file in counts}
    return [
        f"{file} has {here} tests in {target}, expected {there}"
        for target in TARGETS
        for file in sorted(files)
        if (here := found.get(target, {}).get(file, 0))
        != (there := committed.get(target, {}).get(file, 0))
    ]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes tests/tiers.json instead of comparing with it."""
    parser.addoption("--write-tiers", action="store_true", help=f"write {FILE.name}")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]):  # type: ignore[no-untyped-def]
    """Compare all collected tests with the file, before `-m` and `-k` deselect any.

    Raises:
        pytest.UsageError: there are other tests in a file, or the same in another target.
    """
    collected = list(items)
    result = yield
    found = tiers_of(collected)
    if config.getoption("--write-tiers"):
        FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        for target, counts in found.items():
            print(f"{target}: {sum(counts.values())} tests")
    elif not any("::" in argument for argument in config.args):
        problems = differences(found, json.loads(FILE.read_text(encoding="utf-8")))
        if problems:
            remedy = "Run scripts/tiers, and say in the commit why tests changed their target"
            raise pytest.UsageError("\n".join([*problems, remedy]))
    return result
