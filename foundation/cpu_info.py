"""Linux's description of this machine's processors."""

from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def cpu_fields(file: Path = CPU_INFO) -> dict[str, str]:
    """Return the fields of the first processor; empty if there is no such file."""
    try:
        lines = file.read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (ln.partition(":") for ln in lines)}
