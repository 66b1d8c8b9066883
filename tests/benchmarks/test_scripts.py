"""Each benchmark runs in its smoke form, so that none breaks unnoticed.

`make test-long` runs the smoke forms that take a second or two, and checks all imports. The other
smoke forms are marked `chaos`, because most of them train.
"""

import ast
import importlib
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.support.environments import ROOT

BENCHMARKS = ROOT / "benchmarks"
FILES = sorted(BENCHMARKS.rglob("*.py"))
OURS = ("cluster", "data_pipeline", "model", "run_store", "trainer", "transloom")
QUICK = ("multi30k/curves.py", "subword_sampling.py")
NEEDS = {"two_hosts.py": "namespaces"}


@cache
def nodes_of(file: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(file.read_text(), file)))


def constants_of(file: Path) -> set[Any]:
    return {node.value for node in nodes_of(file) if isinstance(node, ast.Constant)}


def is_script(file: Path) -> bool:
    return "__main__" in constants_of(file)


def is_part(file: Path) -> bool:
    """Return whether another script runs this one: then a file in its folder names it."""
    names = {file.name, ".".join(file.relative_to(ROOT).with_suffix("").parts)}
    return any(names & constants_of(other) for other in file.parent.glob("*.py"))


def smoke_of(file: Path) -> Any:
    """Return the arguments of a script's smoke form; None if it has no such form."""
    calls = [node for node in nodes_of(file) if isinstance(node, ast.Call)]
    parsers = [call for call in calls if ast.unparse(call.func) == "parse_arguments"]
    return next((word.value for call in parsers for word in call.keywords), None)


SCRIPTS = [file for file in FILES if is_script(file) and not is_part(file)]


def case(file: Path) -> Any:
    name = str(file.relative_to(BENCHMARKS))
    marks = [] if name in QUICK else [pytest.mark.chaos]
    if name in NEEDS:
        marks.append(pytest.mark.needs(NEEDS[name]))
    return pytest.param(file, id=name, marks=marks)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: str(file.relative_to(BENCHMARKS)))
def test_each_script_has_a_smoke_form(script):
    assert smoke_of(script) is not None, (
        f"{script.name} does not call benchmarks.support.command_line.parse_arguments: "
        "its --smoke shows that it works"
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(BENCHMARKS)))
def test_each_file_compiles_and_its_imports_from_our_packages_exist(file):
    """This includes files that import a peer that is not installed here."""
    compile(file.read_text(), file, "exec")
    for node in nodes_of(file):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        names = {alias.name for alias in node.names}
        if node.module.startswith("benchmarks."):
            source = ROOT / Path(*node.module.split(".")).with_suffix(".py")
            assert names <= names_defined_in(source), node.module
        elif node.module.partition(".")[0] in OURS:
            module = importlib.import_module(node.module)
            for name in names:
                assert hasattr(module, name) or find_spec(f"{node.module}.{name}"), name


def names_defined_in(source: Path) -> set[str]:
    """Return the names that a file assigns, defines or imports."""
    found: set[str] = set()
    for node in nodes_of(source):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name):
                found.add(name)
            case ast.ImportFrom(names=aliases):
                found.update(alias.asname or alias.name for alias in aliases)
    return found


@pytest.mark.parametrize("script", [case(script) for script in SCRIPTS])
def test_the_smoke_form_of_a_script_runs(script, tmp_path):
    done = subprocess.run(
        [sys.executable, script, "--smoke"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout, "a benchmark prints its figures"
    assert list(tmp_path.iterdir()) == [], "a smoke form leaves nothing behind"
