"""Jobs for process pools, in a module that their processes can import."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.errors import DatasetFileError
from foundation.process_pool import process_pool

DELIVERED = "delivered"


def negate(number: int) -> int:
    return -number


def enlarge(data: bytes) -> bytes:
    return data * 3


def own_pid(number: int) -> int:
    time.sleep(0.01)
    return os.getpid()


def refuse_five(number: int) -> int:
    if number == 5:
        raise DatasetFileError("five", "six", "seven")
    return number


def end_at_five(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def end_while_writing(number: int) -> bytes:
    """Return a result; from the fifth on, it fills the pipe, and the process is then killed."""
    if number >= 5:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return bytes(100_000_000 if number >= 5 else 100_000)


def sleep(job: tuple[str, float]) -> None:
    """Write the process's id as a file's name into a folder, then sleep this number of seconds."""
    folder, seconds = job
    Path(folder, str(os.getpid())).touch()
    time.sleep(seconds)


class Delivered:
    """Result that creates a file when its receiver takes it out of the pipe."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def deliver_or_sleep(job: tuple[str, float]) -> Delivered:
    """Sleep like `sleep`, and return a result whose arrival creates a file."""
    sleep(job)
    return Delivered(Path(job[0], DELIVERED))


def given_up(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield long jobs for `sleep` until one of them runs, then raise KeyboardInterrupt."""
    yield from [(str(folder), 3600)] * 2
    while not any(folder.iterdir()):
        time.sleep(0.05)
    raise KeyboardInterrupt


if __name__ == "__main__":
    # A shell that starts tests in the background makes them ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Two processes work, and a third one waits for jobs.
    with process_pool(3, "slept", ChildProcessError) as pool:
        list(pool.map(deliver_or_sleep, [(sys.argv[1], seconds) for seconds in (300, 300, 0)]))
