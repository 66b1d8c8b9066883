"""CI starts no test after its deadline, and runs the most relevant tests first."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.quality.deadline import in_order

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c"):
        text = "import time\n\ndef test_one():\n    time.sleep(2)\n\ndef test_two():\n    pass\n"
        (tmp_path / f"test_{name}.py").write_text(text)
    (tmp_path / "state").mkdir()
    return tmp_path


def run(folder, seconds):
    environment = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "TESTS_STATE": str(folder / "state"),
        "TESTS_DEADLINE": str(time.time() + seconds),
    }
    command = [sys.executable, "-m", "pytest", "-v", "-p", "support.quality.deadline", "."]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = [line.split()[0] for line in done.stdout.splitlines() if " PASSED" in line]
    left = [line for file in (folder / "state").glob("left-*") for line in file.read_text().split()]
    return ran, left


def test_tests_after_the_deadline_are_not_started_but_listed(folder):
    ran, left = run(folder, -1.0)
    assert ran == []
    assert len(left) == 6


def test_tests_that_did_not_run_last_time_are_run_first(folder):
    (folder / "state" / "former-left-7").write_text("test_c.py::test_one\n")
    ran, left = run(folder, 600.0)
    assert [name.partition("::")[0] for name in ran[::2]] == ["test_c.py", "test_a.py", "test_b.py"]
    assert left == []


def test_in_order_puts_test_files_related_to_a_change_first():
    files = ["tests/a/test_x.py", "tests/a/test_y.py", "tests/test_z.py", "tests/b/test_y.py"]
    assert in_order(files, ["tests/test_z.py::test_it"], ["b/y.py", "tests/a/test_y.py"]) == [
        "tests/test_z.py",
        "tests/a/test_y.py",
        "tests/b/test_y.py",
        "tests/a/test_x.py",
    ]
