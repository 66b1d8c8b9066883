"""The folder in which an embedded Ray keeps its session: this user's alone, and gone afterwards.

Ray opens its own folders to everybody (mode 0777), so that users may share a machine; whoever can
write there can make a process read, run or write what he wants. So they lie in a folder of mode
0700:

    /tmp/tlray-x7k2m0qa/     0700, held by a lock for as long as its owner lives
      r/                     what Ray takes for its temporary folder, and opens
        session_…/

A folder whose owner was killed is not locked any more: the next embedded Ray of this user removes
it.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from cluster.errors import ClusterError
from cluster.ray.folder_access import replaceable_by_others

PREFIX = "tlray-"
VARIABLE = "RAY_TMPDIR"
FALLBACK = Path("/tmp")
# A unix socket's path may have 107 bytes. Below the folder above, Ray (2.60.0) adds
# /tlray-x7k2m0qa/r, /session_2026-01-31_12-00-00_123456_4194304 and /sockets/plasma_store.
LONGEST_PARENT = 107 - 17 - 43 - 21


class PrivateFolder:
    """A new folder that nobody else can list, enter or replace.

    Attributes:
        path: what Ray may take for its temporary folder.
    """

    def __init__(self) -> None:
        """
        Raises:
            ClusterError: other users could replace a folder where RAY_TMPDIR says, or paths of
                sockets would be too long there.
            OSError: no folder can be made or locked there.
        """
        parent = _parent()
        remove_stale_folders(parent)
        self._folder, self._lock = _new_locked_folder(parent)
        self.path = self._folder / "r"

    @property
    def logs(self) -> Path:
        """Where the processes of the newest session leave what they say."""
        return self.path / "session_latest" / "logs"

    def remove(self) -> None:
        """Remove it with all that lies there."""
        shutil.rmtree(self._folder, ignore_errors=True)  # a rest goes with the next start
        self.keep_for_inspection()

    def keep_for_inspection(self) -> None:
        """Leave it to be looked at, until this user's next embedded Ray starts."""
        os.close(self._lock)


def remove_stale_folders(parent: Path) -> None:
    """Remove this user's private folders that nobody holds."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, in use, or removed by another start
            lock = _opened(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.geteuid():
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _parent() -> Path:
    """RAY_TMPDIR, where it is set; else TMPDIR or, where that will not do, /tmp."""
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
    """Why a folder is no place for private folders, in words; None if it is one."""
    length = len(os.fsencode(parent))
    if length > LONGEST_PARENT:
        return (
            f"its path has {length} bytes, and with more than {LONGEST_PARENT} those of Ray's "
            "sockets are too long"
        )
    with suppress(OSError):  # if it is not there, that is said where a folder is made in it
        return replaceable_by_others(parent)
    return None


def _new_locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))  # of mode 0700
        with suppress(FileNotFoundError):  # another start took it for one that is left behind
            lock = _opened(folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
