"""The exit code of a command is its own, whatever libraries do while the process is taken down."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# What becomes of a library's thread that uses what the C library has destroyed already.
DIES_AT_THE_END = """
import ctypes
c = ctypes.CDLL(None)
c.on_exit(c.abort, None)
"""
COMMAND = DIES_AT_THE_END + "from cluster.cli import app\napp.main()"
KEPT = "from cluster.exit_code import KeptExitCode\nexit_code = KeptExitCode()\n"


def ended(program: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True
    )


def left_with(code: object) -> str:
    """A program that ends with a code, or a text, and has it kept."""
    return (
        f"import sys\ntry:\n    sys.exit({code!r})\n"
        "except SystemExit as end:\n    exit_code.take(end)\n    raise\n"
    )


def test_without_it_the_process_dies() -> None:
    assert ended(DIES_AT_THE_END).returncode == -signal.SIGABRT


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("frobnicate", 2)])
def test_a_command_ends_with_its_code(argument: str, code: int) -> None:
    assert ended(COMMAND, argument).returncode == code


def test_a_command_that_fails_ends_with_its_code(tmp_path: Path) -> None:
    done = ended(COMMAND, "status", tmp_path / "no-run")
    assert done.returncode == 1
    assert "no-run" in done.stderr


def test_threads_and_functions_for_the_end_have_their_time() -> None:
    late = """
import atexit, threading, time
atexit.register(print, "a function")
threading.Thread(target=lambda: (time.sleep(0.3), print("a thread"))).start()
"""
    done = ended(KEPT + late + DIES_AT_THE_END + left_with(75))
    assert (done.returncode, done.stdout) == (75, "a thread\na function\n")


def test_python_tells_what_only_it_can_tell() -> None:
    text = ended(KEPT + left_with("a text"))
    assert (text.returncode, text.stderr) == (1, "a text\n")
    error = ended(KEPT + "1 / 0")
    assert error.returncode == 1
    assert "ZeroDivisionError" in error.stderr


def test_output_that_nobody_takes_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        program = KEPT + "print('lost')\n" + left_with(0)
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode != 0
