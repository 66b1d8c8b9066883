"""The private folder of an embedded Ray's session, removed when Ray ends.

Ray makes its own folders writable for all users (mode 0777), so that users can share a machine. A
user with write access there can make other users' processes read, run or write anything. Therefore
these folders are inside a folder of mode 0700:

    /tmp/tlray-x7k2m0qa/     0700, locked for as long as its owner process lives
      r/                     Ray's temporary folder, of mode 0777
        session_…/

A folder whose owner was killed is no longer locked: the next embedded Ray of this user removes it.
"""

import os
import shutil
from pathlib import Path

from cluster.errors import ClusterError
from cluster.ray.folder_access import replaceable_by_others, write_problem
from foundation.folder_lock import new_locked_folder, remove_unlocked

PREFIX = "tlray-"
VARIABLE = "RAY_TMPDIR"
FALLBACK = Path("/tmp")
# Longest path of the parent folder, in bytes. The path of a Unix socket may have at most 107 bytes.
# Below the parent are /tlray-x7k2m0qa/r and, in Ray 2.60.0,
# /session_2026-01-31_12-00-00_123456_4194304 and /sockets/plasma_store.
LONGEST_PARENT = 107 - 17 - 43 - 21


class PrivateFolder:
    """A new folder that no other user can list, enter or replace.

    Attributes:
        path: temporary folder for Ray.
    """

    def __init__(self) -> None:
        """Create and lock the folder, and remove stale ones.

        Raises:
            ClusterError: the folder that RAY_TMPDIR names is missing or cannot be written, other
                users could replace a folder on its path, or paths of sockets below it would exceed
                their limit.
            OSError: no folder can be created or locked there.
        """
        parent = _parent()
        remove_stale_folders(parent)
        self._folder, self._lock = new_locked_folder(PREFIX, parent)
        self.path = self._folder / "r"

    @property
    def logs(self) -> Path:
        """Log directory of the newest session's processes."""
        return self.path / "session_latest" / "logs"

    def remove(self) -> None:
        """Remove the folder with its content."""
        shutil.rmtree(self._folder, ignore_errors=True)  # the next start removes remaining files
        self.keep_for_inspection()

    def keep_for_inspection(self) -> None:
        """Keep the folder for inspection until this user's next embedded Ray starts."""
        os.close(self._lock)


def remove_stale_folders(parent: Path) -> None:
    """Remove this user's private folders that no process has locked."""
    remove_unlocked(parent.glob(f"{PREFIX}*"))


def _parent() -> Path:
    """Return RAY_TMPDIR if it is set, otherwise TMPDIR or, if TMPDIR is unsuitable, /tmp."""
    named = os.environ.get(VARIABLE)
    wanted = Path(named or os.environ.get("TMPDIR") or FALLBACK).absolute()
    problem = _unsuitable(wanted)
    if problem and not named:
        wanted, problem = FALLBACK, _unsuitable(FALLBACK)
    if problem:
        raise ClusterError(
            f"An embedded Ray cannot keep its files in {wanted}: {problem}. Set {VARIABLE} to a "
            "folder with a short path that only you can enter (chmod 700)"
        )
    return wanted


def _unsuitable(parent: Path) -> str | None:
    """Return the reason why a folder cannot hold private folders, or None if it can."""
    length = len(os.fsencode(parent))
    if length > LONGEST_PARENT:
        return (
            f"its path has {length} bytes, but may have at most {LONGEST_PARENT}, because the "
            "paths of Ray's sockets would be too long"
        )
    if not parent.is_dir():
        return "there is no such folder"
    return write_problem(parent) or replaceable_by_others(parent)
