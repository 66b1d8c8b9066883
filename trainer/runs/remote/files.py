"""Small files of a run as objects: the record, logs, translations, all but checkpoints.

A file is a list of parts. A file that has grown gets another part with its new bytes. Before it is
uploaded, the part takes in the parts before it that are not larger than itself, so a file of N
bytes has few parts, and each byte is uploaded about log N times. Other changes replace all parts.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from data_pipeline.storage.object_store import ObjectStore
from data_pipeline.storage.regular_files import open_regular
from trainer.runs.remote.file_table import (
    LOCAL_NAMES,
    MAX_PART_BYTES,
    FilePart,
    Files,
    file_part,
    file_time,
    read_part,
)

UNFINISHED = ".unfinished"
# Files that the process around the driver writes: those of jobs, and the output of a sweep's run.
JOBS = "jobs"
SWEEP_OUTPUT = "output.txt"


class FileStamp(NamedTuple):
    """State of a local file, by which a change is noticed."""

    bytes: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileStamp":
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass
class UploadedFiles:
    """Files of a run folder that are in the object store, with their parts."""

    folder: Path
    parts: Files = field(default_factory=dict)
    _stamps: dict[str, FileStamp] = field(default_factory=dict)

    def mark_unchanged(self) -> None:
        """Record that all local files are equal to their parts now, except those that are kept."""
        for name in self.parts:
            with suppress(OSError):
                if not is_kept(name):
                    self._stamps[name] = FileStamp.of((self.folder / name).stat())

    def changed(self) -> list[str]:
        """Return the names of files that have changed since their upload."""
        names = []
        for name in local_files(self.folder):
            with suppress(OSError):  # the file was removed meanwhile
                if self._stamps.get(name) != FileStamp.of((self.folder / name).stat()):
                    names.append(name)
        return names

    def removed(self) -> list[str]:
        """Return the names of uploaded files that no longer exist."""
        return [name for name in self.parts if not (self.folder / name).exists()]

    def upload(self, name: str, put: Callable[[bytes], str]) -> None:
        """Upload the changes of a file.

        Args:
            put: stores an object, and returns its name.

        Raises:
            OSError: the file cannot be read, or an upload has failed.
        """
        with open_regular(self.folder / name) as file:
            status = os.fstat(file.fileno())
            stamp = FileStamp.of(status)
            parts = self._unchanged_parts(name, file, stamp)
            added = status.st_size - sum(part.bytes for part in parts)
            if added:
                while parts and parts[-1].bytes <= added <= MAX_PART_BYTES - parts[-1].bytes:
                    added += parts.pop().bytes
            file.seek(status.st_size - added)
            while added or not parts:
                data = file.read(min(added, MAX_PART_BYTES))
                if not data and parts:  # the file was truncated meanwhile
                    break
                parts.append(file_part(put(data), data))
                added -= len(data)
        parts[-1] = parts[-1].model_copy(update={"modified": file_time(status.st_mtime)})
        self.parts[name] = parts
        self._stamps[name] = stamp

    def _unchanged_parts(self, name: str, file: BinaryIO, now: FileStamp) -> list[FilePart]:
        """Return the uploaded parts that the file still begins with.

        Of a file that has grown in place, such as the record, only the last part is read.
        """
        parts = self.parts.get(name, [])
        before = self._stamps.get(name)
        size = sum(part.bytes for part in parts)
        if parts and before and before.inode == now.inode and before.bytes == size < now.bytes:
            file.seek(size - parts[-1].bytes)
            if _is_content(parts[-1], file.read(parts[-1].bytes)):
                return list(parts)
            file.seek(0)
        return parts[: _equal_parts(file, parts)]


def is_kept(name: str) -> bool:
    """Return whether a driver that pulls its run keeps the folder's version of a file."""
    return name.split("/", 1)[0] in (JOBS, SWEEP_OUTPUT)


def local_files(folder: Path) -> Iterable[str]:
    """Yield the paths of a run folder's small files, relative to the folder.

    Some of them cannot be stored in an object store, see `file_table.name_problem`.
    """
    for directory, directories, files in os.walk(folder):
        at = Path(directory).relative_to(folder)
        if at == Path():
            directories[:] = [name for name in directories if name not in LOCAL_NAMES]
        directories[:] = [name for name in directories if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or name.endswith(UNFINISHED):
                continue
            if not (folder / at / name).is_symlink():  # such as W&B's links to its last log
                yield (at / name).as_posix()


class FileFetcher:
    """Fetcher of a run's files from the object store that keeps what a folder already has."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._fetched: dict[str, tuple[list[FilePart], FileStamp]] = {}

    def fetch(self, name: str, parts: list[FilePart]) -> None:
        """Make a local file equal to the parts; the file changes atomically, or only grows.

        Its modification time becomes that of the uploaded file.

        Raises:
            ObjectMissingError: a part has been replaced meanwhile; read the head again.
            ObjectStoreError: the object store does not answer.
            RunMismatchError: a part is damaged.
            OSError: the folder cannot be written.
        """
        path = self._folder / name
        with suppress(OSError):
            if self._fetched.get(name) == (parts, FileStamp.of(path.stat())):
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = equal_parts(path, parts)
        there = sum(part.bytes for part in parts[:kept])
        if kept and path.stat().st_size == there and not path.is_symlink():
            with path.open("ab") as file:
                for part in parts[kept:]:
                    file.write(read_part(self._store, part))
        else:
            unfinished = path.with_name(f".{path.name}{UNFINISHED}")
            with new_file(unfinished) as file:
                if kept:
                    with open_regular(path) as old:
                        file.write(old.read(there))
                for part in parts[kept:]:
                    file.write(read_part(self._store, part))
            unfinished.replace(path)
        os.utime(path, (parts[-1].modified, parts[-1].modified))
        self._fetched[name] = (parts, FileStamp.of(path.stat()))


def equal_parts(path: Path, parts: list[FilePart]) -> int:
    """Return how many of the parts are at the beginning of a local file."""
    try:
        with open_regular(path) as file:
            return _equal_parts(file, parts)
    except OSError:
        return 0


def _equal_parts(file: BinaryIO, parts: list[FilePart]) -> int:
    for number, part in enumerate(parts):
        if not _is_content(part, file.read(part.bytes)):
            return number
    return len(parts)


def _is_content(part: FilePart, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == part.sha256


def new_file(path: Path) -> BinaryIO:
    """Create a file for writing; one that exists is removed, and a link is not followed."""
    path.unlink(missing_ok=True)
    return path.open("xb")
