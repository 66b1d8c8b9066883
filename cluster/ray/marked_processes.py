"""Processes that are found again by a mark in their environment, whoever their parent is by then.

Whatever a process starts inherits its environment. So the mark is on everything that descends from
what was started under it, also when a parent in between is dead, and when the one who started it
all was told nothing about what it had started.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil  # type: ignore[import-untyped]

MARK = "TRANSLOOM_STARTED_BY"
# Ray's agents change their title, which would overwrite what others see of their environment.
KEEP_ENVIRONMENT = "SPT_NOENV"
DEATH_SECONDS = 30.0


class MarkedProcesses:
    """Those of one mark, which are in no other."""

    def __init__(self) -> None:
        self._mark = f"{os.getpid()}-{secrets.token_hex(8)}"

    @contextmanager
    def marking(self) -> Iterator[None]:
        """What this process starts meanwhile gets the mark."""
        names = (MARK, KEEP_ENVIRONMENT)
        before = {name: os.environ.get(name) for name in names}
        os.environ.update({MARK: self._mark, KEEP_ENVIRONMENT: "1"})
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value

    def alive(self) -> list[psutil.Process]:
        """Those that there are, without this process."""
        found = []
        for process in psutil.process_iter():
            # Of others' processes the environment cannot be read, nor of one that has just ended.
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self._mark and process.pid != os.getpid():
                    found.append(process)
        return found

    def kill(self) -> None:
        """Returns when all are gone, also those that were being started meanwhile."""
        while processes := self.alive():
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            _, alive = psutil.wait_procs(processes, timeout=DEATH_SECONDS)
            if alive:
                return  # stuck in the kernel; they end when it lets them
