"""Comparison of a checkpoint's files with the sizes and hashes in its header."""

import hashlib
from pathlib import Path

from trainer.checkpoints.state_file import FileRecord
from trainer.checkpoints.state_objects import StateObjects
from trainer.errors import CheckpointError


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare_size(folder: Path, record: FileRecord, objects: StateObjects | None) -> None:
    """Compare the size of a checkpoint's file, in its folder or in an object store.

    Raises:
        CheckpointError: the file is missing, or has another size; the message has both values.
    """
    path = folder / record.name
    if objects:
        size = objects.size(record.name)
    elif not path.is_file():
        raise CheckpointError(f"{path} is missing; checkpoint {folder.name} is damaged")
    else:
        size = path.stat().st_size
    if size != record.bytes:
        raise CheckpointError(
            f"{path} has {size} bytes, but checkpoint.json says {record.bytes}: it is damaged"
        )


def compare_hash(folder: Path, record: FileRecord, objects: StateObjects | None) -> None:
    """Compare the size and the hash of a checkpoint's file.

    Raises:
        CheckpointError: the file differs from its entry; the message has both values.
    """
    compare_size(folder, record, objects)
    path = folder / record.name
    try:
        found = objects.sha256(record.name) if objects else sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if found != record.sha256:
        raise CheckpointError(
            f"{path} has sha256 {found}, but checkpoint.json says {record.sha256}: it is damaged"
        )
