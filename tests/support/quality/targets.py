"""Targets of the Makefile and scripts that run tests: each test belongs to exactly one.

A test belongs to several targets, or to none, by the marks of its function, class and module. The
mark `needs` is left out, because `make lab` repeats such tests with the parts that they need.

`make test` has the unit tests, and for each promise one test of complete runs, which has the
mark `proof`. By rules, these tests get the mark `long` without an edit:

- tests with a costly fixture: a cluster of Ray, a browser;
- tests in a directory of complete runs and commands;
- cases of a test with rank processes or with the mark `matrix`, except for the first and the last
  one, which are as unlike as its parameters allow.
"""

from collections.abc import Collection, Iterable
from pathlib import PurePath

import pytest
from _pytest.mark.expression import Expression

# The file that runs each target's tests, and the expression with which it selects them.
TARGETS = {
    "make test": ("scripts/test", "not gpu and not chaos and not lab and not long"),
    "make test-long": ("scripts/test", "long and not gpu and not chaos and not lab"),
    "make chaos": ("Makefile", "chaos and not gpu and not lab"),
    "make lab": ("scripts/lab", "(lab or needs) and not gpu and not chaos"),
    "scripts/gpu_check": ("benchmarks/gpu_check/kernels_stage.py", "gpu"),
}
_EXPRESSIONS = {name: Expression.compile(text) for name, (_, text) in TARGETS.items()}

# Fixtures that take CPU time: a cluster of Ray 5 s, and 1 s for each group of ranks; Chromium 2 s.
COSTLY_FIXTURES = {"ray_head", "browser"}
# Tests in these directories run complete commands, each in a process with torch or in a new
# environment.
LONG_DIRECTORIES = {
    f"tests/{name}" for name in ("benchmarks", "integration", "notebooks", "tutorials")
}
RANK_PROCESSES, MATRIX = "rank_pools", "matrix"
# A test with one of these marks already belongs to its target.
_DECIDED = {"proof", "long", "gpu", "chaos", "lab"}


def mark_long(items: Iterable[pytest.Item], root: PurePath) -> None:
    """Add the mark `long` to tests that are too costly for `make test` and have no mark `proof`."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        marks = _marks(item)
        if marks & _DECIDED:
            continue
        fixtures = set(getattr(item, "fixturenames", ()))
        directories = {parent.as_posix() for parent in item.path.relative_to(root).parents}
        if fixtures & COSTLY_FIXTURES or directories & LONG_DIRECTORIES:
            item.add_marker("long")
        elif RANK_PROCESSES in fixtures or MATRIX in marks:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases_of_test in cases.values():
        for item in cases_of_test[1:-1]:
            item.add_marker("long")


def targets_of(marks: Collection[str]) -> list[str]:
    """Return the targets that run a test with these marks."""
    found = set(marks) - {"needs"}
    return [
        name
        for name, expression in _EXPRESSIONS.items()
        if expression.evaluate(lambda mark, **options: mark in found)
    ]


def check_targets(items: Iterable[pytest.Item]) -> None:
    """Check that each test belongs to exactly one target.

    Raises:
        pytest.UsageError: tests belong to none, or to several.
    """
    problems = [
        f"{item.nodeid} is run by {' and '.join(targets) or 'no target'}, expected exactly one. "
        "Change its marks, of which gpu, chaos and lab exclude each other"
        for item in items
        if len(targets := targets_of(_marks(item))) != 1
    ]
    problems += [
        f"{item.nodeid} has the marks proof and {', '.join(sorted(others))}, expected only one of "
        "them. A proof is run by make test: remove a mark"
        for item in items
        if "proof" in (marks := _marks(item)) and (others := marks & _DECIDED - {"proof"})
    ]
    if problems:
        raise pytest.UsageError("\n".join(problems))


def _marks(item: pytest.Item) -> set[str]:
    return {mark.name for mark in item.iter_markers()}
