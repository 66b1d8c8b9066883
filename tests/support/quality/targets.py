"""Targets of the Makefile and scripts that run tests: each test belongs to exactly one.

A test belongs to several targets, or to none, by the marks of its function, class and module. The
mark `needs` is left out, because `make lab` repeats such tests with the parts that they need.
"""

from collections.abc import Collection, Iterable

import pytest
from _pytest.mark.expression import Expression

# The file that runs each target's tests, and the expression with which it selects them.
TARGETS = {
    "make test": ("scripts/test", "not gpu and not chaos and not lab and not long"),
    "make test-long": ("Makefile", "long and not gpu and not chaos and not lab"),
    "make chaos": ("Makefile", "chaos and not gpu and not lab"),
    "make lab": ("scripts/lab", "(lab or needs) and not gpu and not chaos"),
    "scripts/gpu_check": ("benchmarks/gpu_check/kernels_stage.py", "gpu"),
}
_EXPRESSIONS = {name: Expression.compile(text) for name, (_, text) in TARGETS.items()}


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
        if len(targets := targets_of({mark.name for mark in item.iter_markers()})) != 1
    ]
    if problems:
        raise pytest.UsageError("\n".join(problems))
