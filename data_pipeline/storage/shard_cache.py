"""Cache of a remote dataset's files on this node's disk, keyed by the sha256 of their content.

    get(sha256, most) ──▶ the bytes, verified again; a damaged copy is removed
    add(sha256, bytes) ──temporary file──▶ evict ──rename──▶ FOLDER/SHA256

All processes of a node share a folder, regardless of their datasets, and any of them may be killed
at any time. A copy is therefore renamed into place only when it is complete, and evictions happen
under a file lock. The cache is optional: if it cannot be read or written, the run continues without
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

PARTIAL_PREFIX = ".partial-"
PARTIAL_LIFETIME_SECONDS = 3600
LOCK_NAME = ".lock"
SHA256_NAME = re.compile("[0-9a-f]{64}")

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
            most: maximum size of the file; a larger copy is damaged and is not read.
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
                with self._locked():
                    self._evict(sha256, len(data))
                    partial.rename(self.folder / sha256)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            self._warn_once(error)

    def _evict(self, sha256: str, size: int) -> None:
        """Evict files until a file of `size` bytes fits; ignore a copy that the file replaces."""
        now = time.time()
        copies: list[tuple[int, int, Path]] = []
        for path in self.folder.iterdir():
            # Processes that find a damaged copy remove it without holding the lock.
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if path.name.startswith(PARTIAL_PREFIX):
                    if now - status.st_mtime > PARTIAL_LIFETIME_SECONDS:
                        path.unlink()
                elif SHA256_NAME.fullmatch(path.name) and path.name != sha256:
                    copies.append((status.st_mtime_ns, status.st_size, path))
        excess = size + sum(copy_size for _, copy_size, _ in copies) - self.max_bytes
        for _, copy_size, path in sorted(copies):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= copy_size

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / LOCK_NAME).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                # Closing the file is not enough: a process forked meanwhile would keep the lock.
                fcntl.flock(lock, fcntl.LOCK_UN)

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
