"""Distinguish processes that hang from those that wait for a core of a busy machine.

A thread is active if it computes, or if every sample finds it waiting for a core or a disk. A
deadlock is no activity, nor is a wait for an event that never happens. Time limits therefore need
no reserve for a busy machine.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

# DeepSpeed's idle threads wake up a hundred times per second. Each of them computes for less, and
# is rarely found waiting for a core several times in a row.
COMPUTING_SHARE = 0.05
CHECKS_IN_A_ROW = 5
RUNNABLE, ON_DISK = "R", "D"  # states of a thread


def _threads(processes: Iterable[int]) -> dict[int, tuple[str, float]]:
    """Return the state and CPU seconds of all threads of processes except the calling one."""
    found = {}
    for process in processes:
        try:
            for thread in Path(f"/proc/{process}/task").iterdir():
                state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
                # In nanoseconds. The ticks of 10 ms in "stat" overestimate a thread that wakes up
                # often.
                computed = int((thread / "schedstat").read_text().split()[0]) / 1e9
                found[int(thread.name)] = state, computed
        except OSError:  # the thread has ended
            continue
    found.pop(threading.get_native_id(), None)
    return found


class IdleClock:
    """Clock of the seconds for which none of a set of processes has been active.

    The start or end of a thread is activity, too.
    """

    def __init__(self, processes: Callable[[], Iterable[int]]) -> None:
        self._processes = processes
        self._since = self._checked = time.monotonic()
        self._threads = _threads(processes())
        # number of consecutive checks in which each thread waited
        self._waiting: dict[int, int] = {}
        self.cpu_seconds = 0.0

    def check(self) -> None:
        """Compare the processes with those of the previous check."""
        now, threads = time.monotonic(), _threads(self._processes())
        computed = [
            seconds - self._threads.get(one, ("", 0.0))[1] for one, (_, seconds) in threads.items()
        ]
        self._waiting = {
            one: self._waiting.get(one, 0) + 1
            for one, (state, _) in threads.items()
            if state in (RUNNABLE, ON_DISK)
        }
        if (
            threads.keys() != self._threads.keys()
            or max(computed, default=0.0) > COMPUTING_SHARE * (now - self._checked)
            or max(self._waiting.values(), default=0) >= CHECKS_IN_A_ROW
        ):
            self._since = now
        self.cpu_seconds += sum(computed)
        self._checked, self._threads = now, threads

    @property
    def idle_seconds(self) -> float:
        """Seconds since the processes were active."""
        return self._checked - self._since


def family(process: int | None = None) -> list[int]:
    """Return a process (default: this one) and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [process or os.getpid()]
    for one in found:
        found += children.get(one, [])
    return found
