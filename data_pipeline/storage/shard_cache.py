"""Cache of a remote dataset's files on this node's disk, keyed by the sha256 of their content.

    get(sha256, most) ──▶ the bytes, verified again; a damaged copy is removed
    fetching(sha256) ──▶ one process of the node fetches a file; the others wait for its copy
    add(sha256, bytes) ──temporary file──▶ evict, if it is full ──rename──▶ FOLDER/SHA256

All processes of a node share a folder, regardless of their datasets, and any of them may be killed
at any time. A copy is therefore renamed into place only when it is complete, and evictions happen
under a file lock. The lock file has the total size of the copies, so an add lists the folder only
if the cache is full. An eviction leaves a tenth free, so the cache is seldom full. The total is
removed before a change and written after it. If there is no total, for example after a kill, the
folder is listed. The cache is optional: if it cannot be read or written, the run continues without
it.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from foundation.untrusted_text import logger_of

LOCK_NAME = ".lock"  # its content is the total size of all copies
TOTAL_DIGITS = 19
FREE_AFTER_EVICTION = 0.1  # share of `max_bytes` that an eviction leaves free
SHA256_NAME = re.compile("[0-9a-f]{64}")
PARTIAL_PREFIX = ".partial-"
PARTIAL_LIFETIME_SECONDS = 3600
FETCHES_NAME = ".fetches"  # folder of locks, named by the first digits of a file's sha256
FETCH_LOCK_DIGITS = 3  # different files rarely share a lock
# A process waits this long for another process to fetch a file, which may be stopped meanwhile, and
# then fetches the file itself.
FETCH_WAIT_SECONDS = 120.0
FETCH_POLL_SECONDS = 0.01

logger = logger_of(__name__)


class ShardCache:
    """Folder with at most `max_bytes` of files; the least recently used files are evicted first."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._warned = False

    def get(self, sha256: str, most: int) -> bytes | None:
        """Return the verified content of a file, or None if there is no intact copy.

        Args:
            most: maximum size of the file; a larger copy is treated as damaged and is not read.
        """
        path = self.folder / sha256
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                data = file.read(size) if size <= most else b""
        except OSError:
            return None
        damaged = size > most or hashlib.sha256(data).hexdigest() != sha256
        # The folder may be read-only, or another process may just have evicted the file.
        with contextlib.suppress(OSError):
            if damaged:
                path.unlink()
            else:
                os.utime(path)
        return None if damaged else data

    @contextlib.contextmanager
    def fetching(self, sha256: str) -> Iterator[None]:
        """Wait until no other process or thread of this node fetches the file, then lock it.

        The lock ends with its process. After `FETCH_WAIT_SECONDS`, continue without the lock. There
        is no lock if the folder cannot be written, or the cache keeps no files.
        """
        lock = None
        with contextlib.suppress(OSError):
            if self.max_bytes:
                (self.folder / FETCHES_NAME).mkdir(parents=True, exist_ok=True)
                lock = _open_lock(self.folder / FETCHES_NAME / sha256[:FETCH_LOCK_DIGITS])
        if lock is None:
            yield
            return
        try:
            give_up_at = time.monotonic() + FETCH_WAIT_SECONDS
            while _is_locked_elsewhere(lock) and time.monotonic() < give_up_at:
                time.sleep(FETCH_POLL_SECONDS)
            yield
        finally:
            _close_lock(lock)

    def add(self, sha256: str, data: bytes) -> None:
        """Store the verified content of a file, if it fits into `max_bytes` and on the disk."""
        if len(data) > self.max_bytes:
            return
        partial = self.folder / f"{PARTIAL_PREFIX}{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("xb") as file:
                    file.write(data)
                with self._locked() as lock:
                    self._add_locked(partial, sha256, len(data), lock)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            self._warn_once(error)

    def _add_locked(self, partial: Path, sha256: str, size: int, lock: int) -> None:
        path, before = self.folder / sha256, os.pread(lock, TOTAL_DIGITS, 0)
        os.ftruncate(lock, 0)
        # An unknown total counts as a full cache, so that the folder is listed.
        total = int(before) if before.isdigit() else self.max_bytes
        new = 0 if path.exists() else size
        if new and total + new > self.max_bytes:
            total = self._evict(self.max_bytes - new)
        partial.rename(path)
        os.pwrite(lock, b"%d" % (total + new), 0)

    def _evict(self, most_bytes: int) -> int:
        """Remove the least recently used copies if the copies exceed `most_bytes` in total.

        Partial files of killed processes are removed, too.

        Returns:
            Total size of the remaining copies.
        """
        copies: list[tuple[int, int, Path]] = []
        for path in self.folder.iterdir():
            # Processes that find a damaged copy remove it without holding the lock.
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                is_old = time.time() - status.st_mtime > PARTIAL_LIFETIME_SECONDS
                if SHA256_NAME.fullmatch(path.name):
                    copies.append((status.st_mtime_ns, status.st_size, path))
                elif is_old and path.name.startswith(PARTIAL_PREFIX):
                    path.unlink()
        total = sum(size for _, size, _ in copies)
        if total > most_bytes:
            most_bytes -= int(FREE_AFTER_EVICTION * self.max_bytes)
        for _, size, path in sorted(copies):
            if total <= most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the lock of the cache, and yield the descriptor of its file."""
        lock = _open_lock(self.folder / LOCK_NAME)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            _close_lock(lock)

    def _warn_once(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "The dataset's files cannot be kept in the cache %s (%s), so each is fetched "
                "again when it is needed. Free disk space, lower data.cache_gigabytes (%.1f GB), "
                "or name another folder with data.cache.",
                self.folder,
                error.strerror or error,
                self.max_bytes / 1e9,
            )


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _is_locked_elsewhere(lock: int) -> bool:
    """Try to acquire a lock; return True if another process or thread holds it."""
    with contextlib.suppress(OSError):  # some file systems have no locks
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _close_lock(lock: int) -> None:
    with contextlib.suppress(OSError):
        # Closing the file is not enough: a process forked meanwhile would keep the lock.
        fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)
