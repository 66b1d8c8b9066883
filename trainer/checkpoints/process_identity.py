"""Distinction of processes on one machine whose ids the system reuses."""

from pathlib import Path


def start_tick(process: int) -> int | None:
    """Return a process's start time on a clock that cannot be set, or None if it has ended.

    The unit is clock ticks since the machine was booted (proc(5), field 22 of /proc/PID/stat).
    """
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before ")" may contain any character
    return None if fields[0] in "ZX" else int(fields[19])
