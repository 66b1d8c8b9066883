"""The exit code of a command is its own, whatever libraries do while the process is taken down."""

import ctypes
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import run_python

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "on_exit"), reason="the C library has no on_exit"
)

# What becomes of a library's thread that uses what the C library has destroyed already.
DIES_AT_THE_END = """
import ctypes
c = ctypes.CDLL(None)
c.on_exit(c.abort, None)
"""
COMMAND = DIES_AT_THE_END + "from transloom.cli import app\napp.main()"
KEPT = (
    DIES_AT_THE_END
    + "from transloom.cli.exit_code import keep_exit_code\nimport sys\nkeep_exit_code()\n"
)


def test_without_it_the_process_dies() -> None:
    assert run_python(DIES_AT_THE_END).returncode == -signal.SIGABRT


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("frobnicate", 2)])
def test_a_command_ends_with_its_code(argument: str, code: int) -> None:
    assert run_python(COMMAND, argument).returncode == code


def test_a_command_that_fails_ends_with_its_code(tmp_path: Path) -> None:
    done = run_python(COMMAND, "status", tmp_path / "no-run")
    assert done.returncode == 1
    assert "no-run" in done.stderr


def test_pythons_exit_handlers_run() -> None:
    before = "import atexit; atexit.register(print, 'a function of before')\n"
    late = """
import atexit, threading, time
atexit.register(print, "a function")
threading.Thread(target=lambda: (time.sleep(0.3), print("a thread"))).start()
c.printf(b"a library\\n")
sys.exit(75)
"""
    done = run_python(before + KEPT + late)
    assert done.returncode == 75
    assert sorted(done.stdout.splitlines()) == [
        "a function",
        "a function of before",
        "a library",
        "a thread",
    ]


@pytest.mark.parametrize(
    ("end", "said"), [("sys.exit('a text')", "a text"), ("1 / 0", "ZeroDivisionError")]
)
def test_an_end_with_words_fails(end: str, said: str) -> None:
    done = run_python(KEPT + end)
    assert done.returncode == 1
    assert said in done.stderr


def test_output_that_cannot_be_written_is_an_error() -> None:
    program = KEPT + "print('lost')"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode != 0
