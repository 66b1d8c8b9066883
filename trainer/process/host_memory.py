"""Memory that this process uses, and memory that the host has left.

Linux overcommits memory, and kills a process when it uses more than the host has. So a shortage of
host memory raises no error, unlike a shortage of GPU memory.
"""

import contextlib
import ctypes
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]

_STATUS = Path("/proc/self/status")
_CLEAR_REFERENCES = Path("/proc/self/clear_refs")
_CONTROL_GROUP = Path("/sys/fs/cgroup")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # constants of glibc's malloc.h
# Environment variables of a rank, for libraries that would otherwise free memory that the next step
# needs again (docs/decisions/0033). glibc would return memory to the kernel; allocating that memory
# again takes an eighth of the time of a base model on a CPU. glibc would also list small freed
# blocks by size. They separate larger free blocks, which could then not be merged, so memory would
# grow with the steps. oneDNN would free the code that it generates for each shape of a matrix
# product, and micro-batches have thousands of shapes. Both libraries read the environment when the
# process starts.
ALLOCATOR_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_MMAP_MAX_": "0",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(2**14),
}
# Capacity for the matrix products of one or two steps. This is enough if shapes recur only between
# the layers of a step.
_STEP_CACHE_CAPACITY = str(2**8)


def allocator_environment(*, shapes_recur: bool) -> dict[str, str]:
    """Return `ALLOCATOR_ENVIRONMENT`, with a smaller oneDNN cache if shapes do not recur.

    Args:
        shapes_recur: whether the micro-batches of an epoch have the same shapes as in the previous
            epoch. If they do not, cached code takes gigabytes and is never used again.
    """
    if shapes_recur:
        return dict(ALLOCATOR_ENVIRONMENT)
    return ALLOCATOR_ENVIRONMENT | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": _STEP_CACHE_CAPACITY}


def available_bytes() -> int:
    """Return the memory left on the host, or in this process's container if that is less."""
    return min(int(psutil.virtual_memory().available), available_in_cgroup(_CONTROL_GROUP))


def available_in_cgroup(control_group: Path) -> int:
    """Return the memory that the limit of a control group (version 2) leaves, in bytes.

    Cached files count as free, because the kernel evicts them for processes.

    Returns:
        The bytes left, or `sys.maxsize` if there is no limit.
    """
    try:
        limit = int((control_group / "memory.max").read_text())
        used = int((control_group / "memory.current").read_text())
        lines = (control_group / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # there is no control group, or its limit is "max"
        return sys.maxsize
    parts = dict(line.split() for line in lines)
    return limit - used + int(parts["active_file"]) + int(parts["inactive_file"])


def resident_bytes() -> int:
    """Return the resident memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def retain_freed_memory() -> None:
    """Make glibc keep the memory that this process frees, as in ranks.

    Beam search frees and allocates some megabytes in every step. Allocating them again, page by
    page, takes a tenth of the search's time.
    """
    with contextlib.suppress(AttributeError):  # the C library is not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_MAX, 0)


def release_freed_memory() -> None:
    """Make glibc give freed memory back to the host (docs/decisions/0033)."""
    with contextlib.suppress(AttributeError):  # the C library is not glibc
        ctypes.CDLL(None).malloc_trim(0)


def restart_peak() -> None:
    """Restart the measurement of the peak of the resident memory."""
    with contextlib.suppress(OSError):  # if the write is refused, the peak includes earlier use
        _CLEAR_REFERENCES.write_text("5")


def peak_resident_bytes() -> int:
    """Return the peak of the resident memory since `restart_peak`, in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{_STATUS} has no VmHWM, which every Linux has")
