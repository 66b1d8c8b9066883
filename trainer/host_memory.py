"""How much memory this process takes, and how much more the host would give it.

Linux hands out memory that it does not have and kills a process when the memory is used, so that
on a host, unlike on a GPU, no error says that there is too little.
"""

import contextlib
import ctypes
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]

_STATUS = Path("/proc/self/status")
_CLEAR_REFERENCES = Path("/proc/self/clear_refs")
_CONTROL_GROUP = Path("/sys/fs/cgroup")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
# The environment of a rank, for libraries that would let go of what its next step needs again:
# glibc of memory, which a base model on a CPU waits for an eighth of its time, and oneDNN of the
# code that it made for the shapes of a product, of which micro-batches bring thousands. They read
# it when the process starts (docs/decisions/0033).
KEPT_BY_LIBRARIES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_MMAP_MAX_": "0",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(2**14),
}


def available_bytes() -> int:
    """What the host has left, or the container that this process runs in, if that is less."""
    return min(int(psutil.virtual_memory().available), left_in_container(_CONTROL_GROUP))


def left_in_container(control_group: Path) -> int:
    """What the limit of a control group (version 2) leaves; cached files give way to processes."""
    try:
        limit = int((control_group / "memory.max").read_text())
        used = int((control_group / "memory.current").read_text())
        lines = (control_group / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # there is none, or its limit is "max"
        return sys.maxsize
    parts = dict(line.split() for line in lines)
    return limit - used + int(parts["active_file"]) + int(parts["inactive_file"])


def resident_bytes() -> int:
    """What this process takes now."""
    return int(psutil.Process().memory_info().rss)


def keep_freed() -> None:
    """Keep what this process frees for what it needs next, as ranks do from their start.

    Beam search frees and needs some megabytes in every step; to have them anew, page by page, takes
    a tenth of its time.
    """
    with contextlib.suppress(AttributeError):  # another library of C
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_MAX, 0)


def give_back_freed() -> None:
    """Return to the host what this process has freed and glibc has kept (note 0033)."""
    with contextlib.suppress(AttributeError):  # another library of C
        ctypes.CDLL(None).malloc_trim(0)


def restart_peak() -> None:
    """Count the peak from now on."""
    with contextlib.suppress(OSError):  # not allowed everywhere; the peak is then a higher one
        _CLEAR_REFERENCES.write_text("5")


def peak_resident_bytes() -> int:
    """The most that this process took since `restart_peak`."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("every Linux says what a process took at most")
