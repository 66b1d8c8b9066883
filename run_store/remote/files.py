"""Small files of a run as objects: the record, logs and other files outside checkpoints.

::

    metrics.jsonl/00000-7-3f9a…     its bytes 0 to 256 KiB, written by owner 7, with their hash
    metrics.jsonl/00001-9-c04e…     its other bytes; HEAD.json names the objects of each file

An object is written once, and its name contains the hash of its content. When a file grows, only
its last bytes are stored in new objects. The limits bound the memory and disk of a reader, who may
not trust the writer.
"""

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from data_pipeline.storage.budget import TooManyBytesError
from data_pipeline.storage.object_errors import ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore, StoredObject
from data_pipeline.storage.regular_files import open_regular
from foundation.file_model import Count, FileModel
from foundation.location import path_escape
from run_store.errors import RunMismatchError

CHUNK_BYTES = 256 * 1024
MAX_FILES = 20_000
MAX_NAME_BYTES = 800  # less than 1,024, which object stores allow for a whole name
MAX_COMPONENT_BYTES = 240  # less than 255, which file systems allow: unfinished files add to it
MAX_DEPTH = 32
# Limit on the table of files in a head, and the bytes that a file (without its name) and an object
# take in the table.
MAX_TABLE_BYTES = 15_000_000
BYTES_PER_FILE, BYTES_PER_OBJECT = 120, 45
WARNING_SHARE = 0.8  # share of a limit above which a warning is announced
LATEST_TIME = 2.0**33  # in the year 2242; file systems and datetime accept it
# Directories and files that each node or process has separately, or that can be rebuilt.
LOCAL_NAMES = ("owners", "control", "checkpoints", "engines")
UNFINISHED = ".unfinished"
RECORD = "metrics.jsonl"
# Files that the process around the driver writes: files of jobs, and the output of a sweep's run.
JOBS = "jobs"
SWEEP_OUTPUT = "output.txt"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
FILES_AT_ONCE = 8
# Objects are read whole, so this bounds the memory of all readers in a process.
_READS = threading.BoundedSemaphore(32)

Time = Annotated[float, Field(ge=0, le=LATEST_TIME)]
ChunkId = Annotated[str, Field(pattern="^[0-9]{1,8}-[0-9a-f]{32}$")]


class FileObjects(FileModel):
    """Objects of a file.

    Attributes:
        bytes: the size of the file.
        modified: the time of the file's last change, in seconds since the epoch by the uploader's
            clock.
        chunks: for each `CHUNK_BYTES` of the file, the number of the owner who has written the
            object, and the hash of the object's content.
    """

    bytes: Count
    modified: Time = 0.0
    chunks: Annotated[list[ChunkId], Field(fail_fast=True)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _chunks_cover_the_file(self) -> Self:
        if len(self.chunks) != -(-self.bytes // CHUNK_BYTES):
            raise ValueError(
                f"{self.bytes:,} bytes in {len(self.chunks):,} objects, expected "
                f"{CHUNK_BYTES:,} bytes in each but the last"
            )
        return self

    def objects(self, name: str) -> list[str]:
        """Return the names of the objects of this file, given its path in the run folder."""
        return [f"{name}/{number:05d}-{chunk}" for number, chunk in enumerate(self.chunks)]

    def chunk_bytes(self, number: int) -> int:
        """Return the size of an object."""
        return min(CHUNK_BYTES, self.bytes - number * CHUNK_BYTES)


Files = dict[str, FileObjects]


def objects_of(*tables: Files) -> set[str]:
    """Return the names of the objects of all files in some tables."""
    return {at for files in tables for name, file in files.items() for at in file.objects(name)}


def read_chunk(store: ObjectStore, name: str, file: FileObjects, number: int) -> bytes:
    """Return the verified content of an object of a file.

    Raises:
        ObjectMissingError: there is no such object.
        ObjectStoreError: the object store does not answer.
        RunMismatchError: the object is damaged.
    """
    at, size = file.objects(name)[number], file.chunk_bytes(number)
    with _READS:
        data = read_object(store, at, size).data
    if len(data) != size or not _is_content(file.chunks[number], data):
        raise RunMismatchError(
            f"{store.url}/{at} has {len(data):,} bytes with sha256 "
            f"{hashlib.sha256(data).hexdigest()}, expected {size:,} with that of its name: it is "
            "damaged. Restore the object from a copy or from an earlier version"
        )
    return data


def read_object(store: ObjectStore, name: str, most: int) -> StoredObject:
    """Return an object of at most `most` bytes.

    Raises:
        ObjectMissingError: there is no such object.
        ObjectStoreError: the object store does not answer.
        RunMismatchError: the object is larger.
    """
    try:
        return store.get(name, most)
    except TooManyBytesError as error:
        raise RunMismatchError(
            f"{store.url}/{name} has {error.found}, expected at most {most:,}: it is damaged. "
            "Restore the object from a copy or from an earlier version"
        ) from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _is_content(chunk: str, data: bytes) -> bool:
    return chunk.partition("-")[2] == _digest(data)


class FileStamp(NamedTuple):
    """State of a local file, which differs after a change."""

    bytes: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileStamp":
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass
class KnownFiles:
    """Files of a run folder that this process knows to be equal to objects."""

    folder: Path
    files: Files = field(default_factory=dict)
    _stamps: dict[str, FileStamp] = field(default_factory=dict)

    def is_unchanged(self, name: str) -> bool:
        """Return whether a local file is as it was when it was uploaded or fetched."""
        try:
            return FileStamp.of((self.folder / name).stat()) == self._stamps.get(name)
        except OSError:
            return False

    def upload_changes(
        self,
        store: ObjectStore,
        names: Iterable[str],
        owner: int,
        leave_out: Callable[[str, object], None],
    ) -> None:
        """Upload the files that have changed since they were uploaded or fetched.

        Args:
            owner: the number of the owner who writes the new objects.
            leave_out: receives the name of a file that cannot be uploaded, and the reason.

        Raises:
            OSError: an upload has failed, or the record cannot be read.
        """
        for name in names:
            if name in self.files and self.is_unchanged(name):
                continue
            if problem := name_problem(name):
                leave_out(name, f"its name {problem}")
                continue
            try:
                self.upload(store, name, owner)
            except FileNotFoundError:  # removed meanwhile
                continue
            except ObjectStoreError:
                raise
            except OSError as error:  # such as a FIFO, or a file of another user
                if name == RECORD:
                    raise  # no checkpoint is published without the record of its steps
                leave_out(name, error)

    def upload(self, store: ObjectStore, name: str, owner: int) -> None:
        """Upload the parts of a file that no object of its earlier version has.

        Args:
            owner: the number of the owner who writes the new objects.

        Raises:
            OSError: the file cannot be read, or an upload has failed.
        """
        before, stored = self._stamps.get(name), self.files.get(name)
        known = stored.chunks if stored else []
        with open_regular(self.folder / name) as file:
            status = os.fstat(file.fileno())
            stamp = FileStamp.of(status)
            chunks: list[str] = []
            if before and before.inode == stamp.inode and before.bytes < stamp.bytes:
                # If a file has grown in place, such as the record, read only its end.
                number = max(0, len(known) - 2)
                file.seek(number * CHUNK_BYTES)
                if number and _is_content(known[number], file.read(CHUNK_BYTES)):
                    chunks = known[:number]  # otherwise the file was cut, and has grown again
            size = file.seek(len(chunks) * CHUNK_BYTES)
            while data := file.read(max(0, min(CHUNK_BYTES, stamp.bytes - size))):
                number = len(chunks)
                if number < len(known) and _is_content(known[number], data):
                    chunk = known[number]
                else:
                    chunk = f"{owner}-{_digest(data)}"
                    store.put(f"{name}/{number:05d}-{chunk}", data)
                chunks.append(chunk)
                size += len(data)
        modified = min(max(0.0, status.st_mtime), LATEST_TIME)
        self.files[name] = FileObjects(bytes=size, modified=modified, chunks=chunks)
        self._stamps[name] = stamp

    def fetch(self, store: ObjectStore, name: str, stored: FileObjects) -> None:
        """Update a local file from its objects: replace it atomically, or append to it.

        The local file gets the modification time of the uploaded file.

        Raises:
            ObjectMissingError: an object has been replaced meanwhile; read the head again.
            ObjectStoreError: the object store does not answer.
            RunMismatchError: an object is damaged.
            OSError: the folder cannot be written.
        """
        before = self.files.get(name)
        path, is_known = self.folder / name, self.is_unchanged(name)
        if is_known and before == stored:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        known = before.chunks[:-1] if is_known and before else []
        first = len(known) if stored.chunks[: len(known)] == known else 0
        kept = _equal_chunks(path, stored, first)
        size = min(kept * CHUNK_BYTES, stored.bytes)
        has_grown = kept and path.stat().st_size == size and not path.is_symlink()
        target = path if has_grown else path.with_name(f".{path.name}{UNFINISHED}")
        if not has_grown:
            target.unlink(missing_ok=True)  # the path may be a link
            target.touch(exist_ok=False)
            if kept:
                shutil.copyfile(path, target)
        with target.open("ab") as file:
            file.truncate(size)
            file.writelines(
                read_chunk(store, name, stored, number)
                for number in range(kept, len(stored.chunks))
            )
        target.replace(path)
        os.utime(path, (stored.modified, stored.modified))
        self.files[name], self._stamps[name] = stored, FileStamp.of(path.stat())


def _equal_chunks(path: Path, stored: FileObjects, first: int) -> int:
    """Return the number of leading objects that a local file has; skip the first `first`."""
    try:
        with open_regular(path) as file:
            file.seek(first * CHUNK_BYTES)
            for number, chunk in enumerate(stored.chunks[first:], start=first):
                if not _is_content(chunk, file.read(stored.chunk_bytes(number))):
                    return number
    except OSError:
        return 0
    return len(stored.chunks)


def is_kept(name: str) -> bool:
    """Return whether a driver that pulls its run keeps the folder's version of a file."""
    return name.split("/", 1)[0] in (JOBS, SWEEP_OUTPUT)


def local_files(folder: Path) -> Iterator[str]:
    """Yield the paths of a run folder's small files, relative to the folder.

    Some of them cannot be stored in an object store, see `name_problem`.
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


def storable_files(folder: Path) -> list[str]:
    """Return the paths of the small files in a folder, relative to the folder.

    Raises:
        RunMismatchError: a file cannot be stored, or there are too many.
    """
    names = list(local_files(folder))
    for name in names:
        if problem := name_problem(name):
            raise RunMismatchError(
                f"{str(folder / name)!r} cannot be stored: its name {problem}. Rename or remove it"
            )
    if len(names) > MAX_FILES:
        raise too_many_files(len(names))
    return names


def name_problem(name: str) -> str | None:
    """Return why a path in a run folder cannot be stored as a small file, or None."""
    components = name.split("/")
    if path_escape(name) or any(part.startswith(".") or not part for part in components):
        return "leads out of the run's folder, or to a hidden file"
    if components[0] in LOCAL_NAMES:
        return f"is below {components[0]}, which is not stored as files"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    if _CONTROL.search(name):
        return "has a control character"
    longest = max(len(part.encode()) for part in components)
    if size > MAX_NAME_BYTES or longest > MAX_COMPONENT_BYTES or len(components) > MAX_DEPTH:
        return (
            f"has {size:,} bytes in {len(components):,} levels, the longest of {longest:,} bytes; "
            f"expected at most {MAX_NAME_BYTES:,}, {MAX_DEPTH} and {MAX_COMPONENT_BYTES}"
        )
    return None


def usage(files: Files) -> float:
    """Return the share of the limits that a table of files uses; readers refuse more than 1."""
    size = sum(
        BYTES_PER_FILE + 2 * len(name.encode()) + BYTES_PER_OBJECT * len(file.chunks)
        for name, file in files.items()
    )
    return max(len(files) / MAX_FILES, size / MAX_TABLE_BYTES)


def too_many_files(count: int) -> RunMismatchError:
    """Return the error that a run has too many files for readers."""
    return RunMismatchError(
        f"a run in an object store has at most {MAX_FILES:,} small files, and here are {count:,}. "
        "Remove some, or pack them into an archive"
    )
