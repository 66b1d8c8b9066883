"""The mutants apply to the current code, and `scripts/mutants` reports those that survive."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import run_command
from support.quality.mutants import (
    ROOT,
    MutantError,
    changed_files,
    read_mutant,
    read_mutants,
)
from support.quality.sampled_mutants import _tests_of, _texts, related_tests, sample

from cluster.packages import PACKAGES

MUTANTS = read_mutants()


def defined_tests(file: Path) -> set[str]:
    """Return the names of a file's tests, with the class if they have one."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_applies_and_names_tests_that_exist(mutant):
    changed = changed_files(mutant)
    for file, content in changed.items():
        assert file.split("/")[0] in PACKAGES
        assert content != (ROOT / file).read_text()
        if file.endswith(".py"):
            ast.parse(content)
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file(), test
        assert not name or name.partition("[")[0] in defined_tests(ROOT / file), test


MUTANT = """\
what = "a sum forgets its {term} term"
tests = ["tests/test_sums.py::test_add"]

[[change]]
file = "trainer/sums.py"
old = "return a {operator} b"
new = "return {bug}"
"""
# Importing Hypothesis would take most of the time.
PYTEST = """\
[tool.pytest.ini_options]
addopts = "--import-mode=importlib -p no:hypothesispytest"
"""


@pytest.fixture
def checkout(tmp_path):
    """Return a repository with one function, one test and three mutants."""
    files = {
        "trainer/__init__.py": "",
        "trainer/sums.py": "def add(a, b):\n    return a + b\n",
        "tests/test_sums.py": "from trainer.sums import add\n\n"
        "def test_add():\n    assert add(0, 2) == 2\n",
        "pyproject.toml": PYTEST,
    }
    for name, fields in {
        "seen": {"term": "second", "operator": "+", "bug": "a"},
        "unseen": {"term": "first", "operator": "+", "bug": "b"},
        "stale": {"term": "second", "operator": "-", "bug": "a"},
    }.items():
        files[f"tests/mutants/{name}.toml"] = MUTANT.format(**fields)
    for name, text in files.items():
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in (ROOT / "scripts/mutants", *(ROOT / "tests/support/quality").glob("*.py")):
        copy = tmp_path / "checkout" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path / "checkout"


def run(checkout, *arguments):
    done = run_command(sys.executable, "scripts/mutants", *arguments, cwd=checkout)
    return done.returncode, done.stdout


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
def test_the_script_prints_surviving_mutants(checkout):
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    code, said = run(checkout, "seen")
    assert code == 0
    assert "seen  " in said
    assert "caught by tests/test_sums.py::test_add\n" in said
    assert said.endswith("1 of 1 are caught\n")
    code, said = run(checkout, "stale", "unseen")
    assert code == 1
    assert "does not apply\n    a sum forgets its second term\n" in said
    assert "SURVIVES\n    a sum forgets its first term\n" in said
    assert said.endswith("0 of 2 are caught\n")
    sums = checkout / "trainer" / "sums.py"
    assert sums.read_text() == "def add(a, b):\n    return a + b\n"  # not changed
    sums.write_text("def add(a, b):\n    return a - b\n")
    code, said = run(checkout, "seen")
    assert code == 1
    assert "The tests fail without a bug" in said


def test_there_are_at_most_60_mutants():
    assert len(MUTANTS) <= 60


@pytest.mark.parametrize(
    ("old", "new"),
    [("tests =", "test ="), ("old =", "before ="), ("[[change]]", "[change]"), ('"]', "]")],
    ids=["no tests", "no old code", "one table", "no TOML"],
)
def test_a_mutant_file_without_a_required_part_is_refused(tmp_path, old, new):
    path = tmp_path / "bad.toml"
    path.write_text(MUTANT.format(term="x", operator="+", bug="a").replace(old, new))
    with pytest.raises(MutantError, match=r"bad.toml needs `what`.*`tests`.*`file`, `old`"):
        read_mutant(path)


def test_a_mutant_whose_old_code_occurs_twice_is_refused(tmp_path):
    path = tmp_path / "twice.toml"
    path.write_text(MUTANT.format(term="x", operator="+", bug="a"))
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "sums.py").write_text("return a + b\nreturn a + b\n")
    with pytest.raises(MutantError, match=r"has its old code 2 times, expected once"):
        changed_files(read_mutant(path), tmp_path)


SOURCE = '''\
"""Sums; 1 < 2 in a text stays."""
import logging


def add(a: int, b: int = 1) -> int:
    if a < b:
        raise ValueError(f"{a} < {b}")
    logging.getLogger("x")
    note(f"{a}", b=2)
    return min(a + b, 7, key=abs)
'''


@pytest.fixture
def sums(tmp_path):
    for name, text in {
        "trainer/sums.py": SOURCE,
        "trainer/user.py": "from trainer import sums\n",
        "trainer/page.js": 'const text = "a < b";\nexport const less = (a, b) => a < b;\n',
        "tests/trainer/test_sums.py": "from trainer.sums import add\n",
        "tests/trainer/test_user.py": "from trainer.user import sums\n",
        "tests/chaos/test_all.py": "from trainer.sums import add\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def drawn(root, seed, file="trainer/sums.py", changed=None):
    return sample(root, [file], 100, seed, changed or {})


def test_a_sampled_mutant_changes_one_line_and_no_string(sums):
    found = {mutant.what for seed in range(30) for mutant in drawn(sums, seed)}
    assert found == {
        "1  ⟶  2",  # the default argument
        "a < b  ⟶  (a <= b)",
        "a < b  ⟶  (not (a < b))",
        'raise ValueError(f"{a} < {b}")  ⟶  pass',
        'logging.getLogger("x")  ⟶  pass',
        "min(a + b, 7, key=abs)  ⟶  min(a + b, 7)",
        "a + b  ⟶  (a - b)",
        "7  ⟶  8",
    }
    for mutant in drawn(sums, 1):
        before, after = SOURCE.split("\n"), mutant.content.split("\n")
        assert [
            n for n, pair in enumerate(zip(before, after, strict=True), 1) if len({*pair}) > 1
        ] == [mutant.line]
    assert {
        mutant.what for seed in range(9) for mutant in drawn(sums, seed, "trainer/page.js")
    } == {"<  ⟶  <="}


def test_a_sample_depends_on_the_seed_and_prefers_changed_lines(sums):
    one = [sample(sums, ["trainer/sums.py"], 1, seed, {}) for seed in (1, 1, 2, 3, 4)]
    assert one[0] == one[1]
    assert len({mutant.line for (mutant,) in one}) > 1
    changed = {"trainer/sums.py": {10}}
    lines = [sample(sums, ["trainer/sums.py"], 1, seed, changed)[0].line for seed in range(40)]
    assert lines.count(10) > 15  # one of five lines, which are equally likely if none has changed


def test_related_tests_are_mirrored_test_files_and_importers(sums):
    assert related_tests(sums, "trainer/sums.py") == [
        "tests/trainer/test_sums.py",
        "tests/trainer/test_user.py",
    ]
    assert related_tests(sums, "trainer/page.js") == []
    (sums / "trainer" / "users.js").write_text('import { a } from "./page.js";\n')
    (sums / "tests" / "trainer" / "test_users.py").write_text('run_node("users.mjs")\n')
    (sums / "tests" / "trainer" / "users.mjs").write_text('import { b } from "../users.js";\n')
    (sums / "tests" / "trainer" / "test_slow_users.py").write_text('run_node("users.mjs")\n')
    tiers = {"make test": {"tests/trainer/test_users.py": 1}}
    (sums / "tests" / "tiers.json").write_text(json.dumps(tiers))
    for function in (_texts, _tests_of):
        function.cache_clear()
    assert related_tests(sums, "trainer/page.js") == ["tests/trainer/test_users.py"]
    assert related_tests(ROOT, "trainer/state/ema.py")  # a real source file


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
def test_the_script_runs_tests_on_sampled_mutants(checkout):
    (checkout / "tests" / "mutants").rename(checkout / "listed")
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    code, said = run(checkout, "--sample", "5", "--seed", "1")
    assert code == 0
    assert "1 of 1  trainer/sums.py:2  caught by tests/test_sums.py::test_add\n" in said
    assert said.endswith("seed 1, 1 drawn: 1 killed\n")
