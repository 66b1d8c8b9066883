"""Start trainings with their output in a file, and end all processes that they have started."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psutil


class Training(Protocol):
    """Training that runs in a separate folder.

    Attributes:
        environment: variables in addition to those of this process.
    """

    folder: Path
    environment: dict[str, str]

    def command(self) -> list[str]:
        """Return the command that starts the training."""


def complete(
    command: list[str],
    environment: dict[str, str] | None = None,
    seconds: float | None = None,
) -> None:
    """Run a command to its end; if it fails, exit the benchmark with the command's output.

    Args:
        environment: all environment variables; None uses those of this process.
        seconds: time limit after which the command is killed; None sets no limit.

    Raises:
        subprocess.TimeoutExpired: the command exceeded the time limit.
    """
    training = subprocess.run(
        command,
        env=environment,
        timeout=seconds,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if training.returncode:
        sys.exit(training.stdout)


@contextmanager
def running(
    training: Training, *, cwd: Path | None = None, grace_seconds: float = 0.0
) -> Iterator[psutil.Process]:
    """Run a training while the context is open; its output goes to `output.txt` in its folder.

    At the end, the training is killed. If `grace_seconds` is above 0, it is first asked to stop,
    and has this number of seconds to do so.
    """
    with (training.folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            training.command(),
            env={**os.environ, **training.environment},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    driver = psutil.Process(process.pid)
    try:
        yield driver
    finally:
        left = [driver, *descendants(driver)]
        if grace_seconds:
            process.send_signal(signal.SIGTERM)
            _, left = psutil.wait_procs(left, timeout=grace_seconds)
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left)
        process.wait()


def descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def say(text: str) -> None:
    """Print a progress message to standard error; results go to standard output."""
    print(text, file=sys.stderr, flush=True)
