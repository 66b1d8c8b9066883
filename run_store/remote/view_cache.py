"""Disk space of the copies of runs that commands read: at most `MAX_CACHE_BYTES` on this machine.

::

    CACHE/views/<hash of the prefix>/<name of the run>/    one copy
      .lock                                                locked during a refresh; its modification
                                                           time is that of the last one
"""

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from run_store.errors import RunMismatchError

MAX_CACHE_BYTES = 5 * 10**9
LOCK = ".lock"


class ViewCache:
    """Limit on the total size of the copies below a folder.

    The least recently refreshed copies are removed first.

    Copies for which this process has reserved space are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reserved: dict[Path, int] = {}
        self._others: dict[Path, int] | None = None  # sizes; None before the first scan
        self._lock = threading.Lock()

    def reserve(self, copy: Path, size: int) -> None:
        """Reserve space for a copy of a given size, and remove other copies to make room.

        Raises:
            RunMismatchError: the copy does not fit in addition to the copies that this process
                uses.
        """
        with self._lock:
            self._reserved[copy] = size
            if self._others is None or self._total() > MAX_CACHE_BYTES:
                self._others = {
                    path: _size(path)
                    for path in self.folder.glob("*/*")
                    if path.is_dir() and path not in self._reserved
                }
            for path in sorted(self._others, key=_last_refresh):
                if self._total() <= MAX_CACHE_BYTES:
                    break
                if _remove_unlocked(path):
                    del self._others[path]
            if self._total() > MAX_CACHE_BYTES:
                del self._reserved[copy]
                raise RunMismatchError(
                    f"the copies of runs in {self.folder} would have more than "
                    f"{MAX_CACHE_BYTES:,} bytes with {size:,} bytes for {copy.name}. Name one run "
                    "instead of a prefix, or copy it with `transloom runs pull`"
                )

    def _total(self) -> int:
        return sum(self._reserved.values()) + sum((self._others or {}).values())


def _size(folder: Path) -> int:
    size = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(directory, name)).st_size  # noqa: PTH118 (many files)
    return size


def _last_refresh(copy: Path) -> float:
    try:
        return (copy / LOCK).stat().st_mtime
    except OSError:
        return 0.0


def _remove_unlocked(copy: Path) -> bool:
    """Remove a copy unless a process refreshes it; return whether it was removed."""
    with suppress(OSError), (copy / LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(copy)
    return not copy.exists()


@contextmanager
def locked(copy: Path) -> Iterator[None]:
    """Hold the lock of a copy against other processes, if the file system supports locks."""
    path = copy / LOCK
    with path.open("ab") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        os.utime(path)
        yield
