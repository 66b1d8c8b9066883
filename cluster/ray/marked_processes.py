"""Processes with a mark in their environment, which are found even if their parents have ended.

A process inherits the environment of its parent. Every descendant of a marked process therefore
carries the mark, even if the descendant's parent is dead or unknown to this process.
"""

import os
import secrets
import time
from contextlib import AbstractContextManager, suppress

import psutil  # type: ignore[import-untyped]

from foundation.environment import environment

MARK = "TRANSLOOM_STARTED_BY"
# Variable that keeps a process's environment visible: Ray's agents change their title, which would
# otherwise overwrite the environment that other processes read.
KEEP_ENVIRONMENT = "SPT_NOENV"
DEATH_SECONDS = 30.0
POLL_SECONDS = 0.02


class MarkedProcesses:
    """Processes that carry the unique mark of this instance."""

    def __init__(self) -> None:
        self._mark = f"{os.getpid()}-{secrets.token_hex(8)}"

    def marking(self) -> AbstractContextManager[None]:
        """Return a context in which every process that this process starts is marked."""
        return environment({MARK: self._mark, KEEP_ENVIRONMENT: "1"})

    def alive(self) -> list[psutil.Process]:
        """Return the marked processes that are alive, except this one."""
        found = []
        for process in psutil.process_iter():
            # The environment of another user's process, or of a process that has just ended, cannot
            # be read.
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self._mark and process.pid != os.getpid():
                    found.append(process)
        return found

    def kill(self) -> None:
        """Kill all marked processes, including those started meanwhile, and wait for their end."""
        while processes := self.alive():
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            deadline = time.monotonic() + DEATH_SECONDS
            while any(map(_is_running, processes)):
                if time.monotonic() > deadline:
                    return  # stuck in the kernel; they end when the kernel lets them
                time.sleep(POLL_SECONDS)


def _is_running(process: psutil.Process) -> bool:
    """Return whether a process is running.

    A zombie is not running; a container's init may never reap it.
    """
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
