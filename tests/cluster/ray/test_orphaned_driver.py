"""Set, before a driver imports Ray, that the loss of a raylet does not end the driver."""

import pytest
from support.command import run_python

from cluster.ray.orphaned_driver import VARIABLE

PROGRAM = f"""
import os, sys
from transloom.cli import app
before = "ray" in sys.modules
app.app = lambda: print(before, os.environ["{VARIABLE}"])
app.main()
"""


@pytest.mark.parametrize(("given", "found"), [(None, "1"), ("4711", "4711")])
def test_the_command_sets_the_variable_before_it_imports_ray(given, found, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    done = run_python(PROGRAM, **({VARIABLE: given} if given else {}))
    assert done.stdout == f"False {found}\n", done.stderr
