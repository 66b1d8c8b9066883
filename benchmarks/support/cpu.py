"""CPU time of other processes."""

from contextlib import suppress

import psutil


def cpu_seconds(process_id: int) -> float:
    """Return the CPU seconds that a process has used, without those of its children."""
    times = psutil.Process(process_id).cpu_times()
    return float(times.user + times.system)


def cpu_by_process(root: psutil.Process) -> dict[int, float]:
    """Return the CPU seconds that a process and its descendants have used, by process."""
    used = {}
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            used[process.pid] = cpu_seconds(process.pid)
    return used
