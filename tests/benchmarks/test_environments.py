"""Scripts in a peer's environment import the peer, and no module of the checkout by its name."""

import ast
import importlib.metadata
import json
import sys
from pathlib import Path

from support.command import run_command

from benchmarks.support.environments import ROOT, SHARED_PACKAGES, peer_variables

FILES = sorted((ROOT / "benchmarks").rglob("*.py"))
PROBE = """
import importlib.util, json, sys
print(json.dumps([name for name in sys.argv[1:] if importlib.util.find_spec(name)]))
"""


def imported_by(file: Path) -> set[str]:
    """Return the top-level packages that a file imports."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in names}


def test_a_script_for_a_peer_finds_only_our_shared_packages(tmp_path):
    """Try all folders of the repository; `-S` leaves out the packages of .venv."""
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "neighbour.py").touch()
    names = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"__pycache__"}
    folders = [name for name in names if name.isidentifier()]
    assert {"docs", "tests", "trainer", *SHARED_PACKAGES} <= set(folders)
    probe = (sys.executable, "-S", tmp_path / "probe.py")
    found = run_command(*probe, "neighbour", *folders, cwd=ROOT, **peer_variables())
    assert sorted(json.loads(found.stdout)) == sorted(SHARED_PACKAGES)


def test_no_benchmark_file_has_the_name_of_a_package():
    """If a user runs a script, its folder is first on Python's import path."""
    ours = {path.stem for path in FILES}
    imported = set().union(*map(imported_by, FILES))
    packages = imported | set(importlib.metadata.packages_distributions())
    assert "eole" in packages
    assert ours & (packages | sys.stdlib_module_names) == set()
