"""Regular files: reading of untrusted paths within limits, and writing that survives a power loss.

Opening a FIFO waits for a writer, which may never come, and opening a device may do anything. The
type of a file is therefore checked before it is opened, and again once it is open.
"""

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading.

    Raises:
        OSError: the file cannot be opened, or is not a regular file; `strerror` has the reason.
    """
    _require_regular(path, path.stat().st_mode)
    # O_NONBLOCK: the open must not wait if the file was replaced by a FIFO meanwhile.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _require_regular(path, os.fstat(file.fileno()).st_mode)
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: Path, max_bytes: int | None = None) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: as in `open_regular`, or the file has more than `max_bytes` bytes.
    """
    with open_regular(path) as file:
        if max_bytes is None:
            return file.read()
        size = os.fstat(file.fileno()).st_size
        data = b""
        if size <= max_bytes:
            data = file.read(size + 1)  # not `max_bytes`: `read` allocates the requested size
            if len(data) > size:  # the file has grown, or reports size 0, as in /proc
                data += file.read(max_bytes + 1 - len(data))
            size = max(size, len(data))
        if size > max_bytes:
            text = f"it has {size:,} bytes, expected at most {max_bytes:,}"
            raise OSError(errno.EFBIG, text, str(path))
        return data


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a file of unknown type")
        raise OSError(errno.EINVAL, f"it is {kind}, expected a regular file", str(path))


def write_durably(path: Path, data: bytes) -> str:
    """Write a file, sync it to disk and return its sha256."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write a file atomically: completely or not at all, even if the process is killed."""
    unfinished = path.with_name(path.name + ".unfinished")
    write_durably(unfinished, data.encode() if isinstance(data, str) else data)
    unfinished.replace(path)
    sync_to_disk(path.parent)


def publish_folder(new: Path, target: Path, former: Path | None = None) -> None:
    """Rename a complete folder, so that the target is complete even after a power loss.

    Args:
        former: path to which an existing target is moved before it is replaced.

    Raises:
        OSError: `former` is None, and the target exists and is not an empty folder.
    """
    for path in [*new.rglob("*"), new]:
        sync_to_disk(path)
    if former and target.exists():
        target.rename(former)
    new.replace(target)
    sync_to_disk(target.parent)


def sync_to_disk(path: Path) -> None:
    """Sync a file, or a folder's list of names, to disk, so that it survives a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
