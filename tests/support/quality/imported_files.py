"""Pytest plugin for `scripts/mutants`: check that packages are imported from the copy.

If a bug were planted in a file that is not imported, the bug would seem to survive.
"""

import os
import sys
from pathlib import Path

import pytest

PACKAGES = ("transloom", "cluster", "trainer", "run_store", "model", "data_pipeline", "foundation")


def pytest_sessionfinish() -> None:
    root = Path(os.environ["IMPORTED_FILES_BELOW"])
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in PACKAGES and file and not Path(file).is_relative_to(root):
            pytest.exit(f"{name} was imported from {file}, not from {root}", returncode=4)
