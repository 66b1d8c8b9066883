"""Files that survive a kill or a loss of power whole, or are not there."""

import hashlib
import os
from pathlib import Path


def write_durably(path: Path, data: bytes) -> str:
    """Writes a file through to the disk and returns its sha256."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: str | bytes) -> None:
    """Writes a file whole or not at all, whatever is killed meanwhile."""
    unfinished = path.with_name(path.name + ".unfinished")
    write_durably(unfinished, data.encode() if isinstance(data, str) else data)
    unfinished.replace(path)
    sync_to_disk(path.parent)


def sync_to_disk(path: Path) -> None:
    """Lets a file, or the names in a folder, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
