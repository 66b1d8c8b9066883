"""Idle threads of torch spin only briefly, according to libgomp's report."""

import re

import pytest
from support.command import run_python

PROGRAM = """
from transloom.cli import app
import sys
assert "torch" not in sys.modules
try:
    app.main()
except SystemExit:
    pass
import torch
"""


def spins(**environment: str) -> str | None:
    """Return how often an idle thread of a command's process spins before it sleeps."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
            patch.delenv(name, raising=False)
        done = run_python(PROGRAM, "--help", OMP_DISPLAY_ENV="verbose", **environment)
    assert done.returncode == 0, done.stderr
    if "OPENMP DISPLAY ENVIRONMENT" not in done.stderr:
        pytest.skip("torch computes with another OpenMP than GNU's here")
    found = re.search(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr)
    return found and found[1]


@pytest.mark.long
def test_idle_threads_of_a_command_spin_10000_times() -> None:
    assert spins() == "10000"


@pytest.mark.long
@pytest.mark.parametrize(
    ("environment", "expected"),
    [({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_environment_variables_take_precedence(environment, expected) -> None:
    assert spins(**environment) == expected
