"""Saved states of a run that ranks can restore, and checkpoints in folders."""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from run_store.checkpoints.folder_names import folder_name, list_averages, list_checkpoints
from run_store.checkpoints.format import HEADER, CheckpointHeader, read_header
from run_store.checkpoints.state_file import FileRecord, LocalStateFile, StateFile
from run_store.checkpoints.state_objects import StateObjects, read_parts
from run_store.errors import CheckpointError
from run_store.run_copies import require_named_url


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare_size(folder: Path, record: FileRecord, objects: StateObjects | None) -> None:
    """Compare the size of a checkpoint's file with the expected size.

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


class SavedState(Protocol):
    """State of a run that ranks can restore: a checkpoint on disk, or in the memory of nodes."""

    @property
    def header(self) -> CheckpointHeader: ...

    @property
    def step(self) -> int: ...

    @property
    def label(self) -> str:
        """Description in messages, such as the path."""

    def open_files(self) -> list[StateFile]:
        """Open the state files.

        Raises:
            CheckpointError: a file cannot be read.
        """

    def verify_share(self, rank: int, world_size: int) -> None:
        """Compare the hashes of every `world_size`-th file with the expected ones.

        Raises:
            CheckpointError: a file differs, or cannot be read.
        """


class Checkpoint:
    """Complete checkpoint in a folder, whose state files may be in an object store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_header(path)

    @cached_property
    def objects(self) -> StateObjects | None:
        """State files in an object store; None if they are in the folder.

        Raises:
            CheckpointError: the part list is damaged, or the user has not named its URL.
        """
        parts = read_parts(self.path)
        if parts is None:
            return None
        require_named_url(self.path, parts.url or "")
        return StateObjects(parts)

    @property
    def step(self) -> int:
        return self.header.step

    @property
    def bytes(self) -> int:
        """Size of all state files."""
        return sum(record.bytes for record in self.header.files)

    @property
    def label(self) -> str:
        return str(self.path)

    def open_files(self) -> list[StateFile]:
        if self.objects:
            return [*self.objects.open_files([record.name for record in self.header.files])]
        return [LocalStateFile(path) for path in self.file_paths()]

    def verify_share(self, rank: int, world_size: int) -> None:
        if self.objects:
            return  # the ranks read all chunks, and compare them with their hashes
        for record in self.header.files[rank::world_size]:
            self.verify_file(record)

    def file_paths(self) -> list[Path]:
        """Return the paths of the state files; none of them exists if `objects` has them."""
        return [self.path / record.name for record in self.header.files]

    def verify(self) -> None:
        """Compare the size and hash of every file with the header.

        Raises:
            CheckpointError: a file differs from the header; the message has both values.
        """
        self.verify_sizes()
        with ThreadPoolExecutor(max(1, min(len(self.header.files), os.cpu_count() or 1))) as pool:
            for _ in pool.map(self.verify_file, self.header.files):
                pass

    def verify_before_reading(self) -> None:
        """Verify what readers of the checkpoint do not: hashes, or only sizes in an object store.

        Readers of an object store compare each chunk with its hash, so hashes are not verified
        here.

        Raises:
            CheckpointError: a file differs from the header, or is missing.
            ObjectStoreError: the object store does not answer.
        """
        if self.objects:
            self.verify_sizes()
            self.objects.verify_sizes()
        else:
            self.verify()

    def verify_sizes(self) -> None:
        """Check that every file exists and has its expected size, without reading the files.

        Raises:
            CheckpointError: a file is missing or has another size.
        """
        if not self.header.files:
            raise CheckpointError(f"{self.path / HEADER} names no files: it is damaged")
        if not self.header.averaged_steps and self.path.name != folder_name(self.step):
            raise CheckpointError(
                f"{self.path} holds step {self.step}, not the step in its name: it is damaged"
            )
        for record in self.header.files:
            compare_size(self.path, record, self.objects)

    def verify_file(self, record: FileRecord) -> None:
        """Compare the size and hash of one file with its entry in the header.

        Raises:
            CheckpointError: the file differs from its entry; the message has both values.
        """
        compare_hash(self.path, record, self.objects)


def newest_intact(
    checkpoints: Path,
    *,
    read_files: bool = True,
    damaged: Mapping[Path, str] = MappingProxyType({}),
) -> tuple[Checkpoint | None, dict[Path, str]]:
    """Return the newest intact checkpoint or None, and the problem of each newer one by its path.

    Args:
        checkpoints: the run's directory of checkpoints.
        read_files: whether to compare the hashes of the files, see
            `Checkpoint.verify_before_reading`; otherwise only their sizes are compared.
        damaged: the problems of checkpoints that are known to be damaged, by their paths.
    """
    return _last_intact(list_checkpoints(checkpoints), damaged, read_files)


def newest_intact_average(
    checkpoints: Path, damaged: Mapping[Path, str] = MappingProxyType({})
) -> tuple[Checkpoint | None, dict[Path, str]]:
    """Return the newest intact average or None; see `newest_intact`."""
    return _last_intact(list_averages(checkpoints), damaged)


def _last_intact(
    paths: list[Path], known: Mapping[Path, str], read_files: bool = True
) -> tuple[Checkpoint | None, dict[Path, str]]:
    damaged = {}
    for path in reversed(paths):
        if path in known:
            damaged[path] = known[path]
            continue
        try:
            checkpoint = Checkpoint(path)
            checkpoint.verify_before_reading() if read_files else checkpoint.verify_sizes()
        except CheckpointError as error:
            damaged[path] = str(error)
        else:
            return checkpoint, damaged
    return None, damaged
