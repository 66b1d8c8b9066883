"""Private folder of a run in a node's memory, for the memory tier of checkpoints.

::

    /dev/shm/transloom-1000/            one per user, mode 0700, with a suffix if the name is taken
      5f3c…-9a41…/                      one per run and node, locked while a process of it lives
        1b2c3d4e/                       one per attempt
          state-00000-of-00002.0        slot 0 of rank 0
          state-00000-of-00002.1
          state-00001-of-00002.0.copy   copy of a rank's slot on the previous node

The files end with the machine, and no other user can read them. Every process that uses a folder
holds a shared lock on it. A folder without a lock belongs to a run whose processes were all killed:
`remove_stale_folders` removes it.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from foundation.folder_lock import open_folder, remove_unlocked
from run_store.errors import CheckpointError

SHARED_MEMORY = Path("/dev/shm")
_PRIVATE = 0o700
MAX_TRIES = 100


class MemoryFolder:
    """A run's folder in this node's memory, locked until it is closed.

    Attributes:
        path: the folder, which exists.
    """

    def __init__(self, name: str) -> None:
        """Create the folder unless it exists, and lock it.

        Args:
            name: name of the folder, which identifies the run's owner and the node.

        Raises:
            CheckpointError: this node has no `/dev/shm`, or the folder cannot be created there.
        """
        self.path, self._lock = _locked(name)

    def close(self) -> None:
        """Release this process's lock; the files remain."""
        os.close(self._lock)

    def remove(self) -> None:
        """Remove all files, and release this process's lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()


def user_folder() -> Path:
    """Return this user's folder in the node's memory, and create it unless it exists.

    Any user can create any name in `/dev/shm` first. If the usual name is taken, the folder gets a
    random suffix, which no other user can predict.

    Raises:
        CheckpointError: this node has no `/dev/shm`, or the folder cannot be created there.
    """
    usual = SHARED_MEMORY / f"transloom-{os.geteuid()}"
    try:
        if not user_folders():
            with suppress(FileExistsError):
                usual.mkdir(mode=_PRIVATE)
        if not user_folders():
            tempfile.mkdtemp(prefix=f"{usual.name}-", dir=SHARED_MEMORY)  # of mode 0700
    except OSError as error:
        raise CheckpointError(f"{usual} cannot be created: {error.strerror}") from error
    if folders := user_folders():
        return folders[0]
    raise CheckpointError(
        f"No folder of mode 0700 can be created in {SHARED_MEMORY}: run `umask 077` first"
    )


def user_folders() -> list[Path]:
    """Return this user's folders in the node's memory that no other user can access."""
    names = [f"transloom-{os.geteuid()}", f"transloom-{os.geteuid()}-*"]
    found = (path for name in names for path in sorted(SHARED_MEMORY.glob(name)))
    return [path for path in found if _is_private(path)]


def _is_private(path: Path) -> bool:
    with suppress(OSError):  # it was removed meanwhile
        status = path.lstat()
        return (
            stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.geteuid()
            and stat.S_IMODE(status.st_mode) == _PRIVATE
        )
    return False


def free_bytes(folder: Path) -> int:
    """Return the bytes that a run can use in its folder: free bytes, and bytes that it uses now."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize + used_bytes(folder)


def used_bytes(folder: Path) -> int:
    """Return the bytes that the files in a run's folder use."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def remove_stale_folders() -> None:
    """Remove this user's folders that no process has locked."""
    for folder in user_folders():
        remove_unlocked(folder.iterdir())


def _locked(name: str) -> tuple[Path, int]:
    for _ in range(MAX_TRIES):
        folder = user_folder() / name
        try:
            folder.mkdir(mode=_PRIVATE, exist_ok=True)
            lock = open_folder(folder)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if folder.stat().st_ino == os.fstat(lock).st_ino:
                return folder, lock
            os.close(lock)
        except FileNotFoundError:
            pass  # another process considered it stale and removed it
        except OSError as error:
            raise CheckpointError(f"{folder} cannot be created: {error.strerror}") from error
    raise CheckpointError(f"{folder} cannot be created: other processes remove it")
