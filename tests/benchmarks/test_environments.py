"""Scripts in peers' environments import the peers, and nothing of the checkout in their place."""

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


def test_a_script_for_a_peer_finds_our_shared_packages_and_no_others(tmp_path):
    """The other folders of the repository stand for `datasets/`; `-S` leaves out .venv's own."""
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "neighbour.py").touch()
    names = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"__pycache__"}
    folders = [name for name in names if name.isidentifier()]
    assert {"docs", "tests", "trainer", *SHARED_PACKAGES} <= set(folders)
    probe = (sys.executable, "-S", tmp_path / "probe.py")
    found = run_command(*probe, "neighbour", *folders, cwd=ROOT, **peer_variables())
    assert sorted(json.loads(found.stdout)) == sorted(SHARED_PACKAGES)


def test_no_file_is_named_like_a_package():
    """Python puts a script's folder first on the path when a user runs the script by hand."""
    ours = {path.stem for path in FILES}
    imported = set().union(*map(imported_by, FILES))
    packages = imported | set(importlib.metadata.packages_distributions())
    assert "eole" in packages
    assert ours & (packages | sys.stdlib_module_names) == set()
