"""State files of a checkpoint in an object store: parts, their hashes, and reads of byte ranges.

::

    owners/00000007/step-00000500-3f9a…/               one checkpoint
      state-00000-of-00002.safetensors/00000           part 0: bytes 0 to 64 MiB of the file
      state-00000-of-00002.safetensors/00001
      parts.json                                       sha256 of every 4 MiB of every file
      checkpoint.json

Parts are plain objects, because an object store cannot list or abort the multipart uploads of
another process. The local copy of such a checkpoint is a folder with `checkpoint.json` and
`parts.json`, but no state files. Every chunk that a reader receives is compared with its hash.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from io import BytesIO
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from data_pipeline.storage.regular_files import read_regular
from foundation.file_model import FileModel, JsonLimits, error_summary
from foundation.location import Location
from run_store.checkpoints.state_file import (
    BYTES_PER_ELEMENT,
    HEADER_LIMITS,
    LENGTH_BYTES,
    FileRecord,
    StoredFragment,
    read_layout,
)
from run_store.errors import CheckpointError, DamagedCheckpointError

if TYPE_CHECKING:
    import torch

    from data_pipeline.storage.object_store import ObjectStore

FORMAT = "transloom-parts/1"
PARTS = "parts.json"
# Enough for 3.5 TB, the state of 290 billion weights.
PART_LIMITS = JsonLimits(bytes=64_000_000, values=1_000_000, keys=100_000)
CHUNK_BYTES = 4 * 1024**2
CHUNKS_PER_PART = 16
PART_BYTES = CHUNKS_PER_PART * CHUNK_BYTES
PARTS_IN_FLIGHT = 2
CHUNKS_IN_FLIGHT = 8
CACHED_CHUNKS = 16

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class UploadedFile(FileRecord):
    """Entry of a state file in an object store.

    Attributes:
        chunks: the sha256 of each `CHUNK_BYTES` of the file; the last chunk may be shorter.
    """

    chunks: Annotated[list[Sha256], Field(fail_fast=True)]

    @model_validator(mode="after")
    def _covers_the_file(self) -> "UploadedFile":
        if len(self.chunks) != -(-self.bytes // CHUNK_BYTES):
            raise ValueError(
                f"{self.name} has {self.bytes:,} bytes, but the hashes of {len(self.chunks):,} "
                f"chunks of {CHUNK_BYTES:,} bytes"
            )
        return self


class PartList(FileModel):
    """Content of parts.json.

    Attributes:
        url: location of the checkpoint's objects; None in the object store, where the list is
            stored next to them.
        files: the state files, sorted by name.
    """

    format: Annotated[str, Field(pattern=f"^{FORMAT}$")] = FORMAT
    url: Location | None = None
    files: Annotated[list[UploadedFile], Field(fail_fast=True)]

    def to_json(self) -> bytes:
        """Return the content of parts.json.

        Raises:
            CheckpointError: readers would refuse it.
        """
        data = self.model_dump_json(indent=1).encode() + b"\n"
        if len(data) > PART_LIMITS.bytes:
            size = sum(file.bytes for file in self.files)
            raise CheckpointError(
                f"a checkpoint of {size:,} bytes has a part list of {len(data):,} bytes, expected "
                f"at most {PART_LIMITS.bytes:,}. Train with --run FOLDER on storage that all "
                "nodes share"
            )
        return data

    @classmethod
    def parse(cls, data: bytes, label: str) -> "PartList":
        """Return the list in a file.

        Raises:
            CheckpointError: the file is damaged.
        """
        try:
            return cls.from_json(data, PART_LIMITS)
        except ValueError as error:
            raise CheckpointError(f"{label} is damaged: {error_summary(error)}") from error


def read_parts(folder: Path) -> PartList | None:
    """Return the part list of a checkpoint's folder; None if its state files are on the disk.

    Raises:
        CheckpointError: the list is damaged, or cannot be read.
    """
    path = folder / PARTS
    try:
        return PartList.parse(read_regular(path, PART_LIMITS.bytes), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def part_name(file: str, number: int) -> str:
    """Return the name of an object with a part of a state file."""
    return f"{file}/{number:05d}"


def upload_state_file(
    store: "ObjectStore",
    path: Path,
    record: FileRecord,
    there: Mapping[str, int] = MappingProxyType({}),
    report: Callable[[int], object] = lambda size: None,
) -> UploadedFile:
    """Upload a state file in parts, and return its entry with the hashes of its chunks.

    Args:
        store: the location of the checkpoint's objects.
        path: the local file.
        record: the file's entry.
        there: the size of each part that an interrupted upload of the same file has left, by the
            part's name; these parts are not uploaded again.
        report: receives the number of bytes of each finished part.

    Raises:
        OSError: the file cannot be read, or an upload has failed.
    """

    def upload(number: int) -> list[str]:
        name = part_name(record.name, number)
        with path.open("rb") as file:
            file.seek(number * PART_BYTES)
            part = memoryview(file.read(PART_BYTES))
        if there.get(name) != len(part):
            store.put(name, part)
        report(len(part))
        starts = range(0, len(part), CHUNK_BYTES)
        return [hashlib.sha256(part[start : start + CHUNK_BYTES]).hexdigest() for start in starts]

    with ThreadPoolExecutor(PARTS_IN_FLIGHT, "upload") as pool:
        chunks = [*chain.from_iterable(pool.map(upload, range(-(-record.bytes // PART_BYTES))))]
    return UploadedFile(name=record.name, bytes=record.bytes, sha256=record.sha256, chunks=chunks)


class StateObjects:
    """State files of one checkpoint in an object store, read by verified chunks.

    Readers of all files share a small cache of chunks. Several threads may read. If the object
    store does not answer, each method raises an `OSError`, because a later try may succeed. A
    `CheckpointError` would end the run.
    """

    def __init__(self, parts: PartList) -> None:
        from data_pipeline.storage.object_store import ObjectStore  # imports obstore

        assert parts.url is not None
        self.url = parts.url
        self._store = ObjectStore(parts.url)
        self._files = {file.name: file for file in parts.files}
        self._chunks: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def open_files(self, names: Sequence[str]) -> list["ObjectStateFile"]:
        """Open state files, several at the same time, because each file needs a request."""
        with ThreadPoolExecutor(CHUNKS_IN_FLIGHT, "open") as pool:
            return list(pool.map(lambda name: ObjectStateFile(self, name), names))

    def size(self, name: str) -> int:
        """Return the size of a file in bytes according to the part list.

        Raises:
            CheckpointError: the list does not name the file.
        """
        if name not in self._files:
            raise CheckpointError(f"{self.url}/{PARTS} does not name {name}: it is damaged")
        return self._files[name].bytes

    def verify_sizes(self) -> None:
        """Check that all parts of all files exist with their expected sizes, without reading them.

        Raises:
            CheckpointError: a part is missing, or has another size.
            ObjectStoreError: the object store does not answer.
        """
        there = {object.name: object.bytes for object in self._store.list()}
        for file in self._files.values():
            for number, start in enumerate(range(0, file.bytes, PART_BYTES)):
                part, size = part_name(file.name, number), min(PART_BYTES, file.bytes - start)
                if there.get(part) != size:
                    found = f"has {there[part]:,} bytes" if part in there else "is missing"
                    raise DamagedCheckpointError(
                        f"{self.url}/{part} {found}, but {PARTS} says {size:,}: it is damaged"
                    )

    def sha256(self, name: str) -> str:
        """Read a whole file and return its sha256.

        Raises:
            CheckpointError: the file is damaged, or cannot be read.
        """
        digest = hashlib.sha256()
        for chunk in self._all_chunks(name):
            digest.update(chunk)
        return digest.hexdigest()

    def download(
        self,
        record: FileRecord,
        path: Path,
        report: Callable[[int], object] = lambda size: None,
    ) -> None:
        """Write a whole file to `path`, where it appears complete and verified.

        Args:
            report: receives the number of bytes of each chunk.

        Raises:
            CheckpointError: the file is damaged, or cannot be read.
            OSError: the file cannot be written.
        """
        unfinished = path.with_name(f".{path.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        digest = hashlib.sha256()
        with unfinished.open("xb") as file:
            for chunk in self._all_chunks(record.name):
                digest.update(chunk)
                file.write(chunk)
                report(len(chunk))
        if digest.hexdigest() != record.sha256:
            raise DamagedCheckpointError(
                f"{self.url}/{record.name} has sha256 {digest.hexdigest()}, but checkpoint.json "
                f"says {record.sha256}: it is damaged"
            )
        unfinished.replace(path)

    def beginning(self, name: str, size: int) -> bytes:
        """Return the first `size` bytes of a file, or the whole file if it is smaller.

        Raises:
            CheckpointError: the file is damaged, or cannot be read.
        """
        data = bytearray(min(size, self.size(name)))
        self.read_into(name, 0, memoryview(data), stop=len(data))
        return bytes(data)

    def _all_chunks(self, name: str) -> Iterator[bytes]:
        count = -(-self.size(name) // CHUNK_BYTES)
        for number in range(count):
            for ahead in range(number, min(number + CHUNKS_IN_FLIGHT, count)):
                self._chunk(name, ahead)
            yield self._chunk(name, number).result()

    def read_into(self, name: str, start: int, target: memoryview, *, stop: int) -> None:
        """Fill `target` from byte `start` on.

        Args:
            stop: the end of the range that will be read next; its chunks are fetched ahead.
        """
        end = start + len(target)
        first = start // CHUNK_BYTES
        for number in range(
            first, min(first + CHUNKS_IN_FLIGHT, -(-max(stop, end) // CHUNK_BYTES))
        ):
            self._chunk(name, number)
        for number in range(first, -(-end // CHUNK_BYTES)):
            at = number * CHUNK_BYTES
            piece = self._chunk(name, number).result()[max(0, start - at) : end - at]
            begin = max(0, at - start)
            target[begin : begin + len(piece)] = piece

    def _chunk(self, name: str, number: int) -> Future[bytes]:
        key = (name, number)
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
                if not self._chunks[key].done() or self._chunks[key].exception() is None:
                    return self._chunks[key]
            self._chunks[key] = found = _pool(os.getpid()).submit(self._fetch, name, number)
            while len(self._chunks) > CACHED_CHUNKS:
                self._chunks.popitem(last=False)
            return found

    def _fetch(self, name: str, number: int) -> bytes:
        file = self._files[name]
        part, place = divmod(number, CHUNKS_PER_PART)
        start = place * CHUNK_BYTES
        size = min(CHUNK_BYTES, file.bytes - number * CHUNK_BYTES)
        label = f"{self.url}/{part_name(name, part)}"
        try:
            data = self._store.get_range(part_name(name, part), start, start + size)
        except FileNotFoundError as error:
            raise DamagedCheckpointError(f"{label} is missing") from error
        found = hashlib.sha256(data).hexdigest()
        if found != file.chunks[number]:
            raise DamagedCheckpointError(
                f"bytes {start:,} to {start + size:,} of {label} have sha256 {found}, but "
                f"{PARTS} says {file.chunks[number]}: it is damaged"
            )
        return data


class ObjectStateFile:
    """State file in an object store; see `run_store.checkpoints.state_file.StateFile`.

    Raises:
        CheckpointError: the file cannot be read, or is damaged.
    """

    def __init__(self, objects: StateObjects, name: str) -> None:
        self.label = f"{objects.url}/{name}"
        self._objects = objects
        self._name = name
        try:
            length = int.from_bytes(objects.beginning(name, LENGTH_BYTES), "little")
            header = objects.beginning(name, LENGTH_BYTES + min(length, HEADER_LIMITS.bytes))
            self._fragments, self._positions = read_layout(BytesIO(header), objects.size(name))
        except ValueError as error:
            raise DamagedCheckpointError(f"{self.label} is damaged: {error}") from error
        self._ends = {
            fragment.key: self._positions[fragment.key]
            + (fragment.stop - fragment.start) * BYTES_PER_ELEMENT
            for fragment in self._fragments
        }

    def fragments(self) -> list[StoredFragment]:
        return self._fragments

    def read_into(self, key: str, start: int, target: "torch.Tensor") -> None:
        import torch  # imported late, because the supervisor reads headers without torch

        position = self._positions[key] + start * BYTES_PER_ELEMENT
        view = target.view(torch.uint8).numpy().data
        self._objects.read_into(self._name, position, view, stop=self._ends[key])


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Return this process's pool for requests; a pool does not work after a fork."""
    del process
    return ThreadPoolExecutor(CHUNKS_IN_FLIGHT, "objects")
