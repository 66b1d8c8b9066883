"""Trainings that are measured: started with their output in a file, ended with all they started."""

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
    """One way to train, in a folder of its own."""

    folder: Path
    environment: dict[str, str]  # beside this process's own

    def command(self) -> list[str]:
        """The command that starts the training."""


def complete(
    command: list[str],
    environment: dict[str, str] | None = None,
    seconds: float | None = None,
) -> None:
    """Runs a training to its end; one that fails ends the benchmark with all it has said.

    Args:
        environment: all of it; None: this process's.
        seconds: after which it is killed.

    Raises:
        subprocess.TimeoutExpired: it was killed.
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
    """Trains as long as the context lasts; output goes to `output.txt` in the folder.

    At the end it is asked to stop if it has some seconds for that, then killed.
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
    """Tell whoever watches; what a benchmark answers goes to standard output."""
    print(text, file=sys.stderr, flush=True)
