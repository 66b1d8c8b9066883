"""`scripts/flaky` lists the tests that failed in some round, with how often."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = """\
from pathlib import Path

def test_steady():
    pass

def test_fails_every_other_time():
    mark = Path("mark")
    if mark.exists():
        return mark.unlink()
    mark.touch()
    assert not mark.exists()
"""


@pytest.fixture
def checkout(tmp_path):
    """The scripts with two tests, one of which fails in every other round."""
    for name in ("scripts/flaky", "scripts/test"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, target)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    without_plugins = "-p no:cacheprovider -p no:hypothesispytest"
    (programs / "pytest").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m pytest {without_plugins} "$@"\n'
    )
    (programs / "pytest").chmod(0o755)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "cluster").mkdir()
    (tmp_path / "tests" / "cluster" / "test_some.py").write_text(TESTS)
    return tmp_path


def flaky(checkout, *arguments):
    return subprocess.run(
        [sys.executable, checkout / "scripts" / "flaky", *arguments], capture_output=True, text=True
    )


def test_it_lists_what_failed_in_some_round(checkout):
    done = flaky(checkout, "3")
    assert done.returncode == 1
    assert "round 2 of 3: 0 failed" in done.stdout
    name = "tests/cluster/test_some.py::test_fails_every_other_time"
    assert f"2 of 3  {name}\n1 test failed" in done.stdout
    assert "test_steady" not in done.stdout


def test_arguments_for_pytest_are_passed_on(checkout):
    done = flaky(checkout, "1", "--busy", "1", "-k", "steady")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("\n0 tests failed at least once\n")
