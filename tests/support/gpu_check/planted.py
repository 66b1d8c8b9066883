"""Stage for the runner's tests: rows that pass, and rows that fail in every possible way."""

import os
import signal
import subprocess
import sys
import time

from benchmarks.gpu_check.outcomes import CannotRunError, Measurement, Work, WrongResultError

HANGS = "import time; time.sleep(600)"


def passes(work: Work, name: str = "") -> Measurement:
    with (work.folder / "ran.txt").open("a") as file:
        print(name, file=file)
    return Measurement(0.5, "units", "as planned", aim=name != "misses")


def raises(work: Work) -> Measurement:
    raise ValueError("a | planted error\nof two lines")


def is_wrong(work: Work) -> Measurement:
    raise WrongResultError("expected at most 1", 2.5, "of the bound")


def is_skipped(work: Work) -> Measurement:
    raise CannotRunError("no second GPU")


def is_killed(work: Work) -> Measurement:
    """Die while a forked process still holds the pipe of this process's reports open."""
    if os.fork() == 0:
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def exits(work: Work) -> Measurement:
    print("the last words")
    sys.stdout.flush()
    os._exit(3)


def hangs(work: Work) -> Measurement:
    """Hang, together with a process of another session."""
    started = subprocess.Popen([sys.executable, "-c", HANGS], start_new_session=True)
    (work.folder / "left.pid").write_text(str(started.pid))
    time.sleep(600)
    raise AssertionError
