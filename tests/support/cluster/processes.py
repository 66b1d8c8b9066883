"""Wait for processes, and find processes that should have ended."""

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

Found = TypeVar("Found")
# Ends a test that hangs. It is long, because a condition may take long on a busy machine.
HANG_SECONDS = 600.0


def wait_until(
    condition: Callable[[], Found],
    seconds: float = HANG_SECONDS,
    explain: Callable[[], object] = str,
) -> Found:
    """Wait until a condition is met, and return the value that it returned.

    explain: returns the error's text for a test that has waited too long.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {explain()}"
        time.sleep(0.02)
    return found


def children(pid: int | None = None) -> list[psutil.Process]:
    """Return the children of a process (default: this one), without the resource tracker."""
    return [
        child
        for child in psutil.Process(pid).children(recursive=True)
        if not any("resource_tracker" in word for word in command_of(child))
    ]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def is_alive(pid: int) -> bool:
    """Return whether a process runs; an ended process that was not waited for does not run."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marked(variable: str, value: str) -> list[psutil.Process]:
    """Return the living processes with this variable in their environment, oldest first."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value and is_alive(process.pid):
                found.append((process.create_time(), process.pid, process))
        except (psutil.Error, OSError):
            continue  # the process has ended, or belongs to another user
    return [process for *_, process in sorted(found, key=lambda one: one[:2])]
