"""Distinguish processes that hang from those that wait for a core of a busy machine.

A thread is active if it computes, mostly waits for a core, or is found waiting for a disk by every
sample. A deadlock is no activity, nor is a wait for an event that never happens. Time limits
therefore need no reserve for a busy machine.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

# DeepSpeed's idle threads wake up a hundred times per second. Each of them computes for less, and
# waits for a core for less than ten times as long.
COMPUTING_SHARE = 0.05
CHECKS_IN_A_ROW = 5
ON_DISK = "D"  # state of a thread


def _threads(processes: Iterable[int]) -> dict[int, tuple[str, float, float]]:
    """Return the state of all threads of processes except the calling one, the seconds for which
    each has computed, and those for which it has waited for a core.
    """
    found = {}
    for process in processes:
        try:
            for thread in Path(f"/proc/{process}/task").iterdir():
                state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
                # In nanoseconds. The ticks of 10 ms in "stat" overestimate a thread that wakes up
                # often. A sample of the states is biased: a thread of this process waits for the
                # interpreter's lock while this one takes the sample.
                computed, waited = map(int, (thread / "schedstat").read_text().split()[:2])
                found[int(thread.name)] = state, computed / 1e9, waited / 1e9
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
        # number of consecutive checks in which each thread waited for a disk
        self._on_disk: dict[int, int] = {}
        self.cpu_seconds = 0.0

    def check(self) -> None:
        """Compare the processes with those of the previous check."""
        now, threads = time.monotonic(), _threads(self._processes())
        active = 0.0
        for one, (_, computed, waited) in threads.items():
            _, computed_before, waited_before = self._threads.get(one, ("", 0.0, 0.0))
            self.cpu_seconds += computed - computed_before
            active = max(active, computed - computed_before + (waited - waited_before) / 10)
        on_disk = [one for one, (state, *_) in threads.items() if state == ON_DISK]
        self._on_disk = {one: self._on_disk.get(one, 0) + 1 for one in on_disk}
        if (
            threads.keys() != self._threads.keys()
            or active > COMPUTING_SHARE * (now - self._checked)
            or max(self._on_disk.values(), default=0) >= CHECKS_IN_A_ROW
        ):
            self._since = now
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
