"""Tables of a run's small files: the objects that hold each file, by its path in the run folder.

::

    FileTable   entries   in HEAD.json: files that changed lately
                index     in separate objects: all other files, as JSON
    usage                 share of the limits that a table takes; writers stop at 1
    name_problem          reason why a path cannot be listed; readers and writers share it

The limits bound the memory and disk of a reader, who may not trust the writer. A table of
`MAX_FILES` files takes about 25 MB as JSON, and six JSON values for each file of one part.
"""

import hashlib
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from data_pipeline.storage.budget import TooManyBytesError
from data_pipeline.storage.object_store import ObjectStore
from foundation.file_model import FileModel, JsonLimits, error_summary
from foundation.location import path_escape
from trainer.errors import RunMismatchError

MAX_FILES = 100_000
INDEX_LIMITS = JsonLimits(bytes=48_000_000, values=1_200_000, keys=MAX_FILES)
MAX_PART_BYTES = 8 * 1024**2
# The index of a head in the first format is one part, which may be as large as a head.
MAX_INDEX_PART_BYTES = 16_000_000
MAX_NAME_BYTES = 1_000
MAX_COMPONENT_BYTES = 240  # file systems have 255, and unfinished files longer names
MAX_DEPTH = 32
LATEST_TIME = 2.0**33  # in the year 2242; file systems and datetime accept it
WARNING_SHARE = 0.8  # of the limits
# Files that a head names directly, since it is rewritten every few seconds.
MAX_ENTRIES = 48
# Upper limit of an entry's size as JSON, in addition to the names of the file and of its parts.
_BYTES_PER_FILE, _BYTES_PER_PART = 8, 180
_VALUES_PER_FILE, _VALUES_PER_PART = 2, 5
# Directories and files that every node or process has for itself, or that can be built again.
LOCAL_NAMES = ("owners", "control", "checkpoints", "engines")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Parts are read whole, so this bounds the memory of all readers in a process.
_READS = threading.BoundedSemaphore(8)

Time = Annotated[float, Field(ge=0, le=LATEST_TIME)]


def _object_name(name: str) -> str:
    parts = name.split("/")
    if path_escape(name) or _CONTROL.search(name) or any(part in ("", ".", "..") for part in parts):
        raise ValueError("it is not the name of an object of the run")
    return name


class FilePart(FileModel):
    """Object with consecutive bytes of a file.

    Attributes:
        name: the object's name within the run.
        bytes: its size.
        sha256: the hash of its content.
        modified: time of the file's last change when this part was its last one, in seconds since
            the epoch by the uploader's clock.
    """

    name: Annotated[str, AfterValidator(_object_name)]
    bytes: Annotated[int, Field(ge=0, le=MAX_PART_BYTES)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    modified: Time = 0.0


class IndexPart(FilePart):
    """Object with consecutive bytes of an index."""

    bytes: Annotated[int, Field(ge=0, le=MAX_INDEX_PART_BYTES)]


Files = dict[str, list[FilePart]]
_Files = dict[str, Annotated[list[FilePart], Field(fail_fast=True, min_length=1)]]


class FileTable(FileModel):
    """Parts of files, by the files' paths in the run folder.

    Attributes:
        entries: the parts of some files; they replace those in the index.
        index: the objects with a `FileIndex` of all other files.
    """

    entries: _Files = Field(default_factory=dict)
    index: Annotated[list[IndexPart], Field(fail_fast=True)] = Field(default_factory=list)

    @classmethod
    def of(cls, files: Files, put: Callable[[bytes], str]) -> Self:
        """Return the table of some files, with an index if there are many.

        Args:
            put: stores an object, and returns its name.
        """
        if len(files) <= MAX_ENTRIES:
            return cls(entries=files)
        return cls(index=write_index(files, put))


class FileIndex(FileModel):
    """Content of an index: parts of files, by their paths in the run folder."""

    files: _Files


class TableReader:
    """Reader of the tables of one run, which remembers the last index that it has read."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._index: tuple[list[IndexPart], Files] = ([], {})

    def files(self, *tables: FileTable) -> Files:
        """Return the parts of all files in some tables; later tables replace earlier entries.

        Raises:
            ObjectMissingError: an index has been replaced meanwhile.
            ObjectStoreError: the object store does not answer.
            RunMismatchError: an index is damaged, or the tables name an object twice.
        """
        files: Files = {}
        for table in tables:
            files |= self.indexed(table)
            files |= table.entries
        uses = Counter(part.name for part in all_parts(files))
        if repeated := next((name for name, count in uses.items() if count > 1), None):
            raise RunMismatchError(
                f"{self._store.url} is damaged: it names the object {repeated[:200]!r} "
                f"{uses[repeated]:,} times, expected once"
            )
        return files

    def indexed(self, table: FileTable) -> Files:
        """Return the files in the index of a table; see `files` for the errors."""
        if not table.index:
            return {}
        if self._index[0] != table.index:
            self._index = (table.index, _read_index(self._store, table.index))
        return self._index[1]

    def remember(self, index: list[IndexPart], files: Files) -> None:
        """Keep the content of an index that the caller has written."""
        self._index = (index, files)


def _read_index(store: ObjectStore, index: list[IndexPart]) -> Files:
    label = f"{store.url}/{index[0].name}"
    try:
        if (size := sum(part.bytes for part in index)) > INDEX_LIMITS.bytes:
            raise ValueError(f"{size:,} bytes, expected at most {INDEX_LIMITS.bytes:,}")
        data = b"".join(read_part(store, part) for part in index)
        files = FileIndex.from_json(data, INDEX_LIMITS).files
    except ValueError as error:
        raise RunMismatchError(f"{label} is damaged: {error_summary(error)}") from error
    require_listable(files, label)
    return files


def write_index(files: Files, put: Callable[[bytes], str]) -> list[IndexPart]:
    """Store an index of some files, and return its parts; see `FileTable.of`.

    Raises:
        RunMismatchError: readers would refuse the index.
    """
    if usage(files) > 1.0:
        raise too_many_files(len(files))
    data = FileIndex(files=files).model_dump_json().encode()
    chunks = (data[at : at + MAX_PART_BYTES] for at in range(0, len(data), MAX_PART_BYTES))
    return [IndexPart(**file_part(put(chunk), chunk).model_dump()) for chunk in chunks]


def too_many_files(count: int) -> RunMismatchError:
    """Return the error of a table that readers would refuse."""
    return RunMismatchError(
        f"a run in an object store has at most {MAX_FILES:,} small files, fewer if their names are "
        f"long, and here are {count:,}. Remove some, or pack them into an archive"
    )


def usage(files: Files) -> float:
    """Return the share of the limits that an index of some files takes; readers refuse above 1."""
    size = values = 0
    for name, parts in files.items():
        size += _BYTES_PER_FILE + _json_bytes(name)
        size += sum(_BYTES_PER_PART + _json_bytes(part.name) for part in parts)
        # Readers count these characters as values, also in names.
        marks = sum(map(name.count, ",[{"))
        values += _VALUES_PER_FILE + marks + (_VALUES_PER_PART + marks) * len(parts)
    return max(len(files) / MAX_FILES, size / INDEX_LIMITS.bytes, values / INDEX_LIMITS.values)


def _json_bytes(name: str) -> int:
    return len(name.encode()) + name.count('"')


def name_problem(name: str) -> str | None:
    """Return why a path in a run folder cannot be that of a small file in an object store."""
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


def require_listable(names: Iterable[str], label: str) -> None:
    """Check that paths are those of small files in a run folder.

    Raises:
        RunMismatchError: a path leads elsewhere, or is too long; see `name_problem`.
    """
    for name in names:
        if problem := name_problem(name):
            raise RunMismatchError(f"{label} is damaged: it names {name[:200]!r}, which {problem}")


def read_object(store: ObjectStore, name: str, most: int) -> bytes:
    """Return the content of an object of at most `most` bytes.

    Raises:
        ObjectMissingError: there is no such object.
        ObjectStoreError: the object store does not answer.
        RunMismatchError: the object is larger.
    """
    try:
        return store.get(name, most).data
    except TooManyBytesError as error:
        raise RunMismatchError(
            f"{store.url}/{name} has {error.found}, expected at most {most:,}: it is damaged. "
            "Restore the object from a copy or from an earlier version"
        ) from error


def read_part(store: ObjectStore, part: FilePart) -> bytes:
    """Return the verified content of a part.

    Raises:
        ObjectMissingError: there is no such object.
        ObjectStoreError: the object store does not answer.
        RunMismatchError: the part is damaged.
    """
    with _READS:
        data = read_object(store, part.name, part.bytes)
    digest = hashlib.sha256(data).hexdigest()
    if digest != part.sha256 or len(data) != part.bytes:
        raise RunMismatchError(
            f"{store.url}/{part.name} has {len(data):,} bytes with sha256 {digest}, expected "
            f"{part.bytes:,} with {part.sha256}: it is damaged. Restore the object from a copy or "
            "from an earlier version"
        )
    return data


def put_part(store: ObjectStore, prefix: str, data: bytes) -> str:
    """Store an object under a new name below a prefix, and return the name."""
    name = f"{prefix}/{secrets.token_hex(6)}"
    store.put(name, data)
    return name


def file_part(name: str, data: bytes, modified: float = 0.0) -> FilePart:
    """Describe an object with this content; see `FilePart` for the arguments."""
    return FilePart(
        name=name,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        modified=file_time(modified),
    )


def file_time(modified: float) -> float:
    """Return the time of a file's last change within the limits of `FilePart.modified`."""
    return min(max(0.0, modified), LATEST_TIME)


def all_parts(*tables: Mapping[str, Sequence[FilePart]]) -> Iterator[FilePart]:
    """Yield the parts of all files in some tables."""
    for table in tables:
        for parts in table.values():
            yield from parts
