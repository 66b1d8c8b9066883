"""File of lines with one writer, which stays intact after a kill or on a full disk.

If a kill has torn a line, the torn part is removed when the file is opened again. If the disk fills
up while a line is written, the written part is removed immediately. This line and later lines wait
in memory, in order, until the disk has space. One thread may append while another thread syncs.
"""

import errno
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from data_pipeline.storage.regular_files import sync_to_disk
from foundation.wording import counted
from run_store.errors import CheckpointError, RecordInUseError, RunError
from run_store.record.line_reader import last_line_end, ranges_of

LOCK_TIMEOUT_SECONDS = 15.0
# Error codes of a full disk: no space left, or none within the user's quota.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class LineFile:
    """Writer that appends lines to a file.

    Raises:
        RunError: another process writes the file, or the disk fails.
    """

    def __init__(self, path: Path, notice: Callable[[str], None] = lambda text: None) -> None:
        """Open and lock the file, and remove a torn last line.

        Args:
            path: the file, which is created if it is missing.
            notice: receives a message when lines begin to wait for disk space, and another message
                when they have been written.
        """
        self._path = path
        self._notice = notice
        self._file = path.open("ab", buffering=0)
        sync_to_disk(path.parent)
        _lock(self._file, path)
        _cut_torn_line(path)
        self._size = path.stat().st_size
        self._waiting: deque[bytes] = deque()
        self._writing = threading.Lock()
        self._disk_is_full = False

    def append(self, line: str) -> None:
        """Write a line without a line end; on a full disk, keep it in memory until it fits."""
        with self._writing:
            self._waiting.append(line.encode() + b"\n")
            self._write_waiting()

    def sync(self) -> None:
        """Sync all lines to the disk, so that they survive a power loss.

        Raises:
            CheckpointError: the sync failed, so no checkpoint may be written now.
        """
        if problem := self._write_through():
            raise CheckpointError(f"{problem}, so no checkpoint of these steps may be written")

    def close(self) -> None:
        """Write the lines that wait for space, and release the file to other writers.

        Raises:
            RunError: the last lines could not be written and are lost.
        """
        problem = self._write_through()
        self._file.close()
        if problem:
            raise RunError(
                f"{problem}, and its last lines are lost. Free some disk space, then start the "
                "same command again, which repeats the steps since the newest checkpoint"
            )

    def _write_through(self) -> str | None:
        """Sync everything to the disk; return the problem that prevents it, or None."""
        with self._writing:
            self._write_waiting()
            waiting = len(self._waiting)
        if waiting:
            return f"{self._path} is on a full disk: {counted(waiting, 'line')} cannot be written"
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            return f"{self._path} cannot be synced to the disk ({error.strerror})"
        return None

    def _write_waiting(self) -> None:
        """Write the waiting lines, up to the first one that does not fit on the disk."""
        waited = len(self._waiting)
        try:
            while self._waiting:
                _write_all(self._file, self._waiting[0])
                self._size += len(self._waiting.popleft())
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise RunError(
                    f"{self._path} cannot be written: {error.strerror}. Check the disk, then "
                    "start the same command again"
                ) from error
            self._file.truncate(self._size)
            if not self._disk_is_full:
                self._notice(
                    f"{self._path} is on a full disk: training goes on without checkpoints, and "
                    "new lines wait in memory. Free some disk space"
                )
        else:
            if self._disk_is_full:
                self._notice(
                    f"{self._path} can be written again, because the disk has space: "
                    f"{counted(waited, 'line')} written"
                )
        self._disk_is_full = bool(self._waiting)


def _write_all(file: BinaryIO, content: bytes) -> None:
    while content:
        content = content[file.write(content) :]


def _lock(file: BinaryIO, path: Path) -> None:
    """Make this process the only writer of the file.

    The function waits for the lock, because rank 0 of an attempt that was just killed may still be
    alive. If the file system does not support locks, the function returns without a lock.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                file.close()
                raise RecordInUseError(
                    f"{path} was locked by another process for {LOCK_TIMEOUT_SECONDS:.0f} s, so "
                    "another process is training this run. Stop that process, or train another run"
                ) from error
            time.sleep(0.1)
        except OSError:
            return
        else:
            return


def _cut_torn_line(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(last_line_end(ranges_of(file), file.seek(0, os.SEEK_END)))
