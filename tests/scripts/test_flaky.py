"""`scripts/flaky` lists the tests that failed in any round, and how often they failed."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.cluster.processes import is_alive, wait_until
from support.command import run_command

pytestmark = pytest.mark.long
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

OTHER_TESTS = """\
def test_fails():
    assert False
"""
THIRD_TESTS = """\
def test_passes():
    pass
"""
FILES = {  # one file for each part of the tests
    "cluster/test_some.py": TESTS,
    "model/test_other.py": OTHER_TESTS,
    "transloom/test_third.py": THIRD_TESTS,
}
CONFIGURATION = """\
[tool.pytest.ini_options]
pythonpath = ["tests"]
markers = ["long", "gpu", "chaos", "lab"]
addopts = "--import-mode=importlib"
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return a checkout with the scripts and tests, one of which fails in every other round."""
    monkeypatch.delenv("TESTS_DEADLINE", raising=False)  # CI sets it for a plugin not copied here
    plugins = ("tests/support/quality/tiers.py", "tests/support/quality/targets.py")
    for name in ("scripts/flaky", "scripts/test", *plugins):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    script = tmp_path / "scripts" / "test"
    parts = re.sub(r"units=\(.*?\n\)", "units=(tests/model)", script.read_text(), flags=re.S)
    script.write_text(re.sub(r" (commands|units)\+=\(.*?\)\n", "\n", parts, flags=re.S))
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    without_plugins = "-p no:cacheprovider -p no:hypothesispytest"
    (programs / "pytest").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m pytest {without_plugins} "$@"\n'
    )
    (programs / "pytest").chmod(0o755)
    (tmp_path / "pyproject.toml").write_text(CONFIGURATION)
    tiers = {"make test": {f"tests/{name}": text.count("def ") for name, text in FILES.items()}}
    (tmp_path / "tests" / "tiers.json").write_text(json.dumps(tiers))
    for name, text in FILES.items():
        (tmp_path / "tests" / name).parent.mkdir()
        (tmp_path / "tests" / name).write_text(text)
    return tmp_path


def flaky(checkout, *arguments):
    return run_command(sys.executable, checkout / "scripts" / "flaky", *arguments)


def test_flaky_lists_tests_that_failed_in_any_round(checkout):
    done = flaky(checkout, "3")
    assert done.returncode == 1
    assert "round 2 of 3: 1 failed" in done.stdout
    name = "tests/cluster/test_some.py::test_fails_every_other_time"
    assert f"3 of 3  tests/model/test_other.py::test_fails\n2 of 3  {name}\n2 tests" in done.stdout
    assert "assert False" in (checkout / "build" / "flaky" / "3-units.txt").read_text()
    assert "test_steady" not in done.stdout


def test_flaky_can_repeat_one_part_or_the_long_tests(checkout):
    done = flaky(checkout, "1", "--part", "units")
    assert "1 of 1  tests/model/test_other.py::test_fails\n1 test failed" in done.stdout
    done = flaky(checkout, "1", "--long")
    assert done.stdout.endswith("\n0 tests failed at least once\n")


def test_flaky_refuses_a_test_file_that_tiers_json_lacks(checkout):
    (checkout / "tests" / "model" / "test_new.py").write_text(OTHER_TESTS)
    done = flaky(checkout, "1", "--part", "units")
    assert "tests/model/test_new.py has 1 tests in make test, expected 0" in done.stderr
    assert "scripts/tiers" in done.stderr


def test_flaky_passes_arguments_to_pytest(checkout):
    done = flaky(checkout, "1", "--busy", "1", "-k", "steady")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("\n0 tests failed at least once\n")


def test_processes_that_tests_have_started_are_killed_at_the_end(checkout):
    """A test starts a process in a separate session, like a Ray head, and pytest is killed."""
    test = """\
import os, signal, subprocess

def test_is_killed():
    print(subprocess.Popen(["sleep", "600"], start_new_session=True).pid, file=open("left", "w"))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    (checkout / "tests" / "model" / "test_other.py").write_text(test)
    done = subprocess.run([checkout / "scripts" / "test", "--part=units"], capture_output=True)
    assert done.returncode == 128 + signal.SIGKILL
    left = int((checkout / "left").read_text())
    wait_until(lambda: not is_alive(left))


def test_all_parts_are_run_and_a_failure_of_one_gives_exit_code_1(checkout):
    (checkout / "mark").touch()  # makes the tests of the first part pass
    done = subprocess.run([checkout / "scripts" / "test", "-q"], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    assert "2 passed" in done.stdout
    assert "FAILED tests/model/test_other.py::test_fails" in done.stdout
    assert not done.stderr
