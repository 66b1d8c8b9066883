"""A command's exit code survives crashes of libraries while its process shuts down."""

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

# Abort at exit, like a library's thread that uses objects which the C library has destroyed.
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


def test_a_process_that_does_not_keep_its_exit_code_aborts() -> None:
    assert run_python(DIES_AT_THE_END).returncode == -signal.SIGABRT


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("frobnicate", 2)])
def test_a_command_keeps_its_exit_code_if_a_library_aborts(argument: str, code: int) -> None:
    assert run_python(COMMAND, argument).returncode == code


def test_a_failing_command_keeps_its_exit_code_and_message(tmp_path: Path) -> None:
    done = run_python(COMMAND, "status", tmp_path / "no-run")
    assert done.returncode == 1
    assert "no-run" in done.stderr


def test_exit_handlers_threads_and_buffered_c_output_still_finish() -> None:
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
def test_an_exit_message_or_exception_is_printed_and_gives_exit_code_1(end: str, said: str) -> None:
    done = run_python(KEPT + end)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_full_output_device_gives_a_nonzero_exit_code() -> None:
    program = KEPT + "print('lost')"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode != 0
