"""Locks on folders, which show whether a process still uses the folder."""

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def open_folder(folder: Path) -> int:
    """Open a folder, but not a link, so that it can be locked; return the descriptor.

    Raises:
        OSError: there is no such folder, or this user may not open it.
    """
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def new_locked_folder(prefix: str, parent: Path, *, must_lock: bool = True) -> tuple[Path, int]:
    """Create a folder of mode 0700 and lock it; return it with the descriptor that holds the lock.

    Args:
        must_lock: False to return a folder without a lock if the file system cannot lock folders,
            such as NFS. `remove_unlocked` then removes no folder there.

    Raises:
        OSError: no folder can be created or locked there.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))  # mkdtemp uses mode 0700
        with suppress(FileNotFoundError):  # another process has removed it before the lock
            lock = open_folder(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:
                if must_lock:
                    raise
            if folder.exists():
                return folder, lock
            os.close(lock)


def remove_unlocked(folders: Iterable[Path]) -> None:
    """Remove the folders that belong to this user and that no process has locked."""
    for folder in folders:
        with suppress(OSError):  # if it is another user's, in use, or already removed
            lock = open_folder(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.geteuid():
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def leftovers(target: Path) -> list[Path]:
    """Return the folders of `work_folder` for a target, including those of killed processes."""
    return list(target.parent.glob(f"{glob.escape(_prefix(target))}*"))


def _prefix(target: Path) -> str:
    return f".{target.name}.unfinished-"


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """Yield a hidden folder next to a file or folder, in which the target is prepared.

    A missing parent directory is created. The folder is removed at the end. Folders that killed
    processes have left for the same target are removed at the start.

    Raises:
        OSError: no folder can be created there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_unlocked(leftovers(target))
    folder, lock = new_locked_folder(_prefix(target), target.parent, must_lock=False)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
