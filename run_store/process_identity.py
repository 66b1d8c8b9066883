"""Identity of processes, which distinguishes processes that have reused the same process id."""

from pathlib import Path


def start_tick(process: int) -> int | None:
    """Return a process's start time, or None if the process has ended.

    The unit is clock ticks since the machine was booted (proc(5), field 22 of /proc/PID/stat), so a
    change of the system's date does not affect it.
    """
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the process name before ")" may contain spaces
    return None if fields[0] in "ZX" else int(fields[19])


def host_identity() -> str | None:
    """Return an identifier of this boot and PID namespace, or None if it is unknown.

    Process ids can be compared only within one boot and PID namespace.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None
