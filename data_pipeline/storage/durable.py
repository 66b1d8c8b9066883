"""Functions that write files and sync them to disk, so that they survive a kill or power loss."""

import hashlib
import os
from pathlib import Path


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
        former: where a folder is moved that the target replaces.

    Raises:
        OSError: the target exists, is not an empty folder, and `former` is None.
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
