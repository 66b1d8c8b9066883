"""Each test is run by exactly one target: its file is collected, and its marks select one."""

import ast
import itertools
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.quality.targets import TARGETS, check_targets, targets_of

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


def test_every_test_file_is_collected(pytestconfig):
    listed = subprocess.run(
        ["git", "ls-files", "*test_*.py", "*_test.py"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    files = [
        name
        for name in listed.stdout.splitlines()
        if any(fnmatch(Path(name).name, one) for one in pytestconfig.getini("python_files"))
        and (ROOT / name).exists()
    ]
    assert len(files) > 500
    assert [name for name in files if not is_collected(name, pytestconfig)] == []
    assert [name for name in files if not has_tests(ROOT / name)] == []


def test_a_file_in_a_skipped_folder_is_not_collected(pytestconfig):
    assert is_collected("tests/trainer/build/test_run.py", pytestconfig)
    assert not is_collected("tests/.hidden/test_run.py", pytestconfig)
    assert not is_collected("benchmarks/test_run.py", pytestconfig)


@pytest.mark.parametrize("target", TARGETS)
def test_the_expression_is_that_of_the_file_that_runs_the_target(target):
    file, expression = TARGETS[target]
    text = (ROOT / file).read_text(encoding="utf-8")
    assert f'-m "{expression}"' in text or f'"-m", "{expression}"' in text


MARKS = ("gpu", "chaos", "lab", "long", "needs")


@pytest.mark.parametrize(
    "marks", [marks for n in range(len(MARKS) + 1) for marks in itertools.combinations(MARKS, n)]
)
def test_marks_that_no_target_or_several_select_are_refused(marks):
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
