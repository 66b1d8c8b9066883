"""Locks on folders, which show whether a process that uses a folder still lives."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def open_folder(folder: Path) -> int:
    """Open a folder, but not a link to one, so that it can be locked; return the descriptor.

    Raises:
        OSError: there is no such folder, or this user may not open it.
    """
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def new_locked_folder(prefix: str, parent: Path) -> tuple[Path, int]:
    """Create a folder of mode 0700 and lock it; return it with the descriptor that holds the lock.

    Raises:
        OSError: no folder can be created or locked there.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))  # of mode 0700
        with suppress(FileNotFoundError):  # `remove_unlocked` of another process was faster
            lock = open_folder(folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def remove_unlocked(folders: Iterable[Path]) -> None:
    """Remove those of the folders that belong to this user and that no process has locked."""
    for folder in folders:
        with suppress(OSError):  # another user's, in use, or removed by another process
            lock = open_folder(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.geteuid():
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
