"""What this process's control group may use of its machine, in a container or under Slurm.

    /proc/self/cgroup   the group, and so those around it ──┐
    /sys/fs/cgroup      limit and use of each               ┴─▶ the least limit of memory, of cores

Both versions of control groups are read. A container often sees its own group alone, at the top.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CGROUP_MOUNT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class MemoryLimit:
    """The memory that a group may take, and takes, without cached files, which give way."""

    limit_bytes: int
    used_bytes: int


@dataclass(frozen=True)
class CoreLimit:
    """How many cores may be used, perhaps a fraction of one, and the CPU time taken so far."""

    cores: float
    busy_seconds: Callable[[], float]


def memory_limit(mounted: Path = CGROUP_MOUNT, own_groups: Path = OWN_GROUPS) -> MemoryLimit | None:
    """The least memory that a group around this process may take; None without a limit."""
    found = []
    for group in _cgroups("memory", mounted, own_groups):
        with suppress(OSError, ValueError, KeyError):
            found.append(_memory_of(group))
    return min(found, key=lambda limit: limit.limit_bytes, default=None)


def core_limit(mounted: Path = CGROUP_MOUNT, own_groups: Path = OWN_GROUPS) -> CoreLimit | None:
    """The fewest cores that a group around this process may use; None without a limit."""
    found = []
    for group in _cgroups("cpu", mounted, own_groups):
        with suppress(OSError, ValueError, KeyError):
            if limit := _cores_of(group, mounted):
                found.append(limit)
    return min(found, key=lambda limit: limit.cores, default=None)


def _cgroups(controller: str, mounted: Path, own_groups: Path) -> Iterator[Path]:
    """The folders of this process's group and of those around it that can be seen."""
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)  # as proc(5) has it
        # Version 2 has one tree for all, version 1 one for each controller.
        if controllers and controller not in controllers.split(","):
            continue
        top = mounted / controller if controllers else mounted
        group = top / path.lstrip("/")
        while True:
            if group.is_dir():
                yield group
            if group == top or top not in group.parents:
                break
            group = group.parent


def _memory_of(group: Path) -> MemoryLimit:
    """Raises ValueError if there is no limit ("max"), OSError if it is told nowhere."""
    if (group / "memory.max").exists():
        limit, used, prefix = "memory.max", "memory.current", ""
    else:
        limit, used, prefix = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
    stat = _table(group / "memory.stat")
    cached = stat[f"{prefix}active_file"] + stat[f"{prefix}inactive_file"]
    taken = int((group / used).read_text())
    return MemoryLimit(int((group / limit).read_text()), max(0, taken - cached))


def _cores_of(group: Path, mounted: Path) -> CoreLimit | None:
    """None without a limit. Raises OSError, ValueError or KeyError if it cannot be told."""
    if (group / "cpu.max").exists():
        quota, period = (group / "cpu.max").read_text().split()
        stat = group / "cpu.stat"
        return _core_limit(quota, period, lambda: _table(stat)["usage_usec"] / 1e6)
    quota, period = (
        (group / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    )
    usage = mounted / "cpuacct" / group.relative_to(mounted / "cpu") / "cpuacct.usage"
    return _core_limit(quota, period, lambda: int(usage.read_text()) / 1e9)


def _core_limit(quota: str, period: str, busy_seconds: Callable[[], float]) -> CoreLimit | None:
    if quota.strip() in ("max", "-1"):
        return None
    busy_seconds()  # it can be read
    return CoreLimit(int(quota) / int(period), busy_seconds)


def _table(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in map(str.split, path.read_text().splitlines())}
