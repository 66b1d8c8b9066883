"""A driver tells Ray, before it is imported, that no lost raylet ends it."""

import os
import subprocess
import sys

import pytest

from cluster.ray.orphaned_driver import VARIABLE

PROGRAM = f"""
import os, sys
from transloom.cli import app
before = "ray" in sys.modules
app.app = lambda: print(before, os.environ["{VARIABLE}"])
app.main()
"""


@pytest.mark.parametrize(("given", "found"), [(None, "1"), ("4711", "4711")])
def test_the_command_says_so_before_it_imports_ray(given, found):
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {VARIABLE: given} if given else {}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert done.stdout == f"False {found}\n", done.stderr
