"""Each test is run by exactly one target: its file is collected, and its marks fit one target."""

import ast
import itertools
import json
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.command import run_command
from support.quality.targets import TARGETS, check_targets, mark_long, targets_of
from support.quality.tiers import FILE, differences, tiers_of

ROOT = Path(__file__).resolve().parents[1]


def is_collected(name: str, config: pytest.Config) -> bool:
    """Return whether pytest without arguments collects a test file of this name."""
    folders = Path(name).parent.parts
    below = next(
        (
            folders[len(parts) :]
            for parts in (Path(path).parts for path in config.getini("testpaths"))
            if folders[: len(parts)] == parts
        ),
        None,
    )
    skipped = config.getini("norecursedirs")
    return below is not None and not any(
        fnmatch(folder, pattern) for folder in below for pattern in skipped
    )


def has_tests(path: Path) -> bool:
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


@pytest.fixture
def names_in_git():
    """Return all files of the checkout that git tracks."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def test_every_test_file_is_collected(pytestconfig, names_in_git):
    files = [
        name
        for name in names_in_git
        if any(fnmatch(Path(name).name, one) for one in pytestconfig.getini("python_files"))
    ]
    assert len(files) > 500
    assert [name for name in files if not is_collected(name, pytestconfig)] == []
    assert [name for name in files if not has_tests(ROOT / name)] == []


def test_a_file_in_a_skipped_folder_is_not_collected(pytestconfig):
    assert is_collected("tests/trainer/assembly/test_run.py", pytestconfig)
    assert not is_collected("tests/.hidden/test_run.py", pytestconfig)
    assert not is_collected("tests/trainer/build/test_run.py", pytestconfig)
    assert not is_collected("benchmarks/test_run.py", pytestconfig)


@pytest.mark.parametrize("target", TARGETS)
def test_the_file_that_runs_a_target_has_the_targets_mark_expression(target):
    file, expression = TARGETS[target]
    text = (ROOT / file).read_text(encoding="utf-8")
    assert f'-m "{expression}"' in text or f'"-m", "{expression}"' in text


def test_paths_that_shell_scripts_pass_to_pytest_are_in_git(names_in_git):
    """A path must be in git, because an ignored or empty folder may remain when tests move."""
    files = map(Path, names_in_git)
    present = {str(path) for file in files for path in (file, *file.parents)}
    scripts = ("scripts/test", "scripts/lab", "scripts/oldest", "scripts/check")
    text = "\n".join((ROOT / script).read_text(encoding="utf-8") for script in scripts)
    words = " ".join(re.findall(r"(?<![\w/.])tests/[^\s()\"]+", text))
    # bash expands braces and patterns
    expanded = run_command("bash", "-c", f"printf '%s\\n' {words}", cwd=ROOT)
    paths = expanded.stdout.splitlines()
    assert len(paths) > 40
    assert [path for path in paths if path not in present] == []


MARKS = ("gpu", "chaos", "lab", "long", "needs")


@pytest.mark.parametrize(
    "marks", [marks for n in range(len(MARKS) + 1) for marks in itertools.combinations(MARKS, n)]
)
def test_marks_that_fit_no_target_are_refused(marks):
    item = SimpleNamespace(
        nodeid="tests/test_x.py::test_y",
        iter_markers=lambda: [SimpleNamespace(name=mark) for mark in marks],
    )
    if not {"chaos", "lab"} <= set(marks) or "gpu" in marks:
        assert len(targets_of(marks)) == 1
        check_targets([item])
    else:
        with pytest.raises(pytest.UsageError, match=r"test_x.py::test_y is run by no target.*lab"):
            check_targets([item])


class Item:
    """Imitates a collected test, with the attributes that the rules read."""

    def __init__(self, nodeid: str, *marks: str, fixtures: tuple[str, ...] = ()) -> None:
        self.nodeid = nodeid
        self.path = ROOT / nodeid.partition("::")[0]
        self.location = (nodeid.partition("::")[0], 0, "")
        self.fixturenames = fixtures
        self.marks = [*marks]

    def add_marker(self, name: str) -> None:
        self.marks.append(name)

    def iter_markers(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=mark) for mark in self.marks]


def is_long(*items: Item) -> list[bool]:
    mark_long(items, ROOT)
    return ["long" in item.marks for item in items]


def test_tests_with_ray_or_in_integration_are_long_unless_marked_proof():
    ray = Item("tests/cluster/test_x.py::test_y", fixtures=("runs", "ray_head"))
    proof = Item("tests/integration/test_x.py::test_y", "proof", fixtures=("ray_head",))
    complete = Item("tests/integration/test_x.py::test_z")
    unit = Item("tests/model/test_x.py::test_y", fixtures=("tmp_path",))
    assert is_long(ray, proof, complete, unit) == [True, False, True, False]


def test_a_test_marked_chaos_is_not_marked_long():
    chaos = Item("tests/integration/test_x.py::test_y", "chaos", fixtures=("ray_head",))
    assert is_long(chaos) == [False]


def test_only_the_first_and_last_case_of_a_matrix_are_not_long():
    cases = [Item(f"tests/model/test_x.py::test_y[{n}]", "matrix") for n in range(4)]
    assert is_long(*cases) == [False, True, True, False]


def test_only_the_first_and_last_case_with_rank_processes_are_not_long():
    cases = [
        Item(f"tests/trainer/test_x.py::test_y[{n}]", *marks, fixtures=("rank_pools",))
        for n, marks in enumerate(((), ("chaos",), (), (), ()))
    ]
    alone = Item("tests/trainer/test_x.py::test_z", fixtures=("rank_pools",))
    assert is_long(*cases, alone) == [False, False, True, True, False, False]


def test_a_test_marked_proof_and_long_is_refused():
    with pytest.raises(pytest.UsageError, match=r"test_y has the marks proof and long.*remove"):
        check_targets([Item("tests/integration/test_x.py::test_y", "proof", "long")])


def test_every_test_file_is_in_the_committed_tiers():
    """scripts/test compares the numbers of tests, because it collects them."""
    committed = json.loads(FILE.read_text(encoding="utf-8"))
    assert set(committed) == set(TARGETS)
    files = {file for counts in committed.values() for file in counts}
    present = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/test_*.py")}
    assert files == present, "Run scripts/tiers"


def test_differences_names_files_whose_tests_have_changed_their_target():
    file = "tests/model/test_x.py"
    found = tiers_of([Item(f"{file}::test_y"), Item(f"{file}::test_z", "long")])
    assert found["make test"] == found["make test-long"] == {file: 1}
    committed = {"make test": {file: 2, "tests/model/test_not_collected.py": 3}}
    assert differences(found, committed) == [
        f"{file} has 1 tests in make test, expected 2",
        f"{file} has 1 tests in make test-long, expected 0",
    ]
    assert differences(found, found) == []
