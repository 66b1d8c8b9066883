"""Start trainings with their output in a file, and end all processes that they have started."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

import psutil

TRANSLOOM = str(Path(sys.executable).parent / "transloom")


class Training(Protocol):
    """Training that runs in a separate folder.

    Attributes:
        environment: variables in addition to those of this process.
    """

    folder: Path
    environment: dict[str, str]

    def command(self) -> list[str]:
        """Return the command that starts the training."""


def train_command(recipe: str, arguments: Sequence[str], run: Path) -> list[str]:
    """Return the command that trains or continues a run.

    Args:
        arguments: overrides of the recipe, and options.
    """
    return [TRANSLOOM, "train", recipe, *arguments, "--run", str(run)]


@dataclass
class TransloomTraining:
    """Training by `transloom train`; `arguments` as in `train_command`."""

    folder: Path
    recipe: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def command(self) -> list[str]:
        return train_command(self.recipe, self.arguments, self.run)


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


@contextmanager
def serving(
    command: Sequence[str], address: str, environment: dict[str, str] | None = None
) -> Iterator[tuple[int, re.Match[str]]]:
    """Run a server while the context is open; return its process id and its address.

    Args:
        address: pattern of the address in the server's output.
        environment: all environment variables; None uses those of this process.
    """
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if found := re.search(address, line):
                break
        else:
            sys.exit(f"{command}: the server has not come up")
        try:
            yield process.pid, found
        finally:
            process.terminate()
            process.communicate()


def wait_for(
    what: str,
    is_met: Callable[[], object],
    training: Training,
    driver: psutil.Process,
    timeout_seconds: float,
) -> None:
    """Wait until a condition of a training is met; exit if it ends before, or at the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while not is_met():
        if has_ended(driver):
            exit_with_output(training, f"it ended before {what}")
        if time.monotonic() > deadline:
            exit_with_output(training, f"there was no {what} within {timeout_seconds:.0f} s")
        time.sleep(0.1)


def exit_with_output(training: Training, reason: str) -> NoReturn:
    """Exit the benchmark with the end of a training's output."""
    output = (training.folder / "output.txt").read_text(errors="replace")
    sys.exit(f"{training.command()}: {reason}\n{output[-4000:]}")


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
