"""Read the limits of this process's control group, in a container or under Slurm.

    /proc/self/cgroup   the group, and therefore its ancestors ──┐
    /sys/fs/cgroup      limit and use of each                    ┴─▶ lowest memory and core limits

Versions 1 and 2 of control groups are supported. A container often sees only its own group, as the
root directory.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CGROUP_MOUNT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class MemoryLimit:
    """Memory limit of a group, and its use without reclaimable file cache."""

    limit_bytes: int
    used_bytes: int


@dataclass(frozen=True)
class CoreLimit:
    """Number of cores, possibly fractional, that a group may use, and the CPU time used so far."""

    cores: float
    busy_seconds: Callable[[], float]


def memory_limit(mounted: Path = CGROUP_MOUNT, own_groups: Path = OWN_GROUPS) -> MemoryLimit | None:
    """Return the lowest memory limit of this process's control groups, or None if there is none."""
    found = []
    for group in _cgroups("memory", mounted, own_groups):
        with suppress(OSError, ValueError, KeyError):
            found.append(_memory_of(group))
    return min(found, key=lambda limit: limit.limit_bytes, default=None)


def core_limit(mounted: Path = CGROUP_MOUNT, own_groups: Path = OWN_GROUPS) -> CoreLimit | None:
    """Return the lowest core limit of this process's control groups, or None if there is none."""
    found = []
    for group in _cgroups("cpu", mounted, own_groups):
        with suppress(OSError, ValueError, KeyError):
            if limit := _cores_of(group, mounted):
                found.append(limit)
    return min(found, key=lambda limit: limit.cores, default=None)


def _cgroups(controller: str, mounted: Path, own_groups: Path) -> Iterator[Path]:
    """Yield the visible directories of this process's control group and of its ancestors."""
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)  # format documented in proc(5)
        # Version 2 has one tree for all controllers, version 1 one tree for each.
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
    """Return the limit and use of memory in a group.

    Raises:
        ValueError: the group has no limit ("max").
        OSError: the group has no memory files.
        KeyError: `memory.stat` lacks a field.
    """
    if (group / "memory.max").exists():
        limit, used, prefix = "memory.max", "memory.current", ""
    else:
        limit, used, prefix = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
    stat = _table(group / "memory.stat")
    cached = stat[f"{prefix}active_file"] + stat[f"{prefix}inactive_file"]
    taken = int((group / used).read_text())
    return MemoryLimit(int((group / limit).read_text()), max(0, taken - cached))


def _cores_of(group: Path, mounted: Path) -> CoreLimit | None:
    """Return the core limit of a group, or None if the group has no limit.

    Raises:
        OSError, ValueError, KeyError: the limit or the CPU time cannot be read.
    """
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
    busy_seconds()  # fails early if unreadable
    return CoreLimit(int(quota) / int(period), busy_seconds)


def _table(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in map(str.split, path.read_text().splitlines())}
