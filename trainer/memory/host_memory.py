"""How much memory this process takes, and how much more the host would give it.

Linux hands out memory that it does not have, and kills a process when the memory is used. So on a
host, unlike on a GPU, no error says that there is too little.
"""

import contextlib
import ctypes
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]

_STATUS = Path("/proc/self/status")
_CLEAR_REFERENCES = Path("/proc/self/clear_refs")
_CONTROL_GROUP = Path("/sys/fs/cgroup")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h
# Environment of a rank, for libraries that would free what its next step needs again
# (docs/decisions/0033). glibc would free memory: to get it again takes a base model on a CPU an
# eighth of its time. oneDNN would free the code that it made for the shapes of a product, of which
# micro-batches bring thousands. Both read the environment when the process starts.
ALLOCATOR_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_MMAP_MAX_": "0",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(2**14),
}
# Products of a step or two: enough for layers of the same shapes, where no shape comes back later.
_CODE_OF_A_STEP = str(2**8)


def allocator_environment(*, shapes_recur: bool) -> dict[str, str]:
    """The environment of a rank: `ALLOCATOR_ENVIRONMENT`, or less of it.

    Args:
        shapes_recur: whether the micro-batches of a pass have the shapes of those of the one
            before. Where they do not, code that is kept takes gigabytes and is never used again.
    """
    if shapes_recur:
        return dict(ALLOCATOR_ENVIRONMENT)
    return ALLOCATOR_ENVIRONMENT | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": _CODE_OF_A_STEP}


def available_bytes() -> int:
    """The memory left on the host, or in the container of this process if that is less."""
    return min(int(psutil.virtual_memory().available), available_in_cgroup(_CONTROL_GROUP))


def available_in_cgroup(control_group: Path) -> int:
    """The memory that the limit of a control group (version 2) leaves.

    Cached files count as free: they give way to processes.
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
    """The memory that this process takes now."""
    return int(psutil.Process().memory_info().rss)


def retain_freed_memory() -> None:
    """Keep the memory that this process frees for later use, as ranks do from their start.

    Beam search frees and needs some megabytes in every step. To get them anew, page by page, takes
    a tenth of its time.
    """
    with contextlib.suppress(AttributeError):  # a C library other than glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_MAX, 0)


def release_freed_memory() -> None:
    """Return to the host the memory that this process has freed and glibc has kept (note 0033)."""
    with contextlib.suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def restart_peak() -> None:
    """Count the peak from now on."""
    with contextlib.suppress(OSError):  # not allowed everywhere; then the peak may be an older one
        _CLEAR_REFERENCES.write_text("5")


def peak_resident_bytes() -> int:
    """The most memory that this process took since `restart_peak`."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("every Linux says what a process took at most")
