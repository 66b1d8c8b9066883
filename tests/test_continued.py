"""With `--continued`, pytest runs only the tests that have not passed yet."""

import sys
from pathlib import Path

from support.command import run_command

ROOT = Path(__file__).resolve().parents[1]
TESTS = """\
from pathlib import Path
import pytest

@pytest.fixture
def broken_at_the_end():
    yield
    assert Path("mended").exists()

def test_passes():
    print("steady")

def test_passes_once_it_is_mended():
    assert Path("mended").exists()

def test_passes_but_for_its_fixture(broken_at_the_end):
    pass
"""


def run(folder: Path, selection: str = "not lab") -> tuple[int, str]:
    """Return the exit code and the output of pytest."""
    (folder / "test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", selection]
    command += ["-p", "support.quality.continued", f"--continued={folder / 'passed'}"]
    done = run_command(*command, cwd=folder, PYTHONPATH=str(ROOT / "tests"))
    return done.returncode, done.stdout


def test_a_repeated_target_runs_only_tests_that_have_not_passed(tmp_path: Path) -> None:
    code, output = run(tmp_path)
    assert code == 1
    assert "1 failed, 2 passed, 1 error" in output
    (tmp_path / "mended").touch()
    code, output = run(tmp_path)
    assert code == 0, output
    assert "1 passed before" in output
    assert "2 passed, 1 deselected" in output
    code, output = run(tmp_path)
    assert code == 0, "nothing is left to run, which is no failure"
    assert "3 passed before" in output


def test_a_target_with_another_mark_expression_runs_all_tests(tmp_path: Path) -> None:
    (tmp_path / "mended").touch()
    run(tmp_path)
    assert "3 passed in" in run(tmp_path, "not chaos")[1]
