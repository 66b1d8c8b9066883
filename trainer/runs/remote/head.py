"""HEAD.json of a run in an object store: its owner, and the names of all its objects.

The head changes only by compare-and-swap, so it is the fence between drivers: a driver that has
lost the run can still upload objects, but no head will name them. Objects that the head does not
name are garbage, which the owner deletes.
"""

import hashlib
import random
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from typing import Annotated

from pydantic import Field

from data_pipeline.storage.object_errors import (
    ObjectConflictError,
    ObjectMissingError,
    ObjectStoreError,
)
from data_pipeline.storage.object_store import ObjectStore
from foundation.file_model import Count, FileModel, error_summary
from foundation.location import path_escape
from foundation.strict_json import JsonLimits, parse_object
from trainer.checkpoints.lease import OwnerMetadata, is_dead
from trainer.errors import RunMismatchError

FORMAT = "transloom-head/1"
HEAD = "HEAD.json"
HEAD_LIMITS = JsonLimits(bytes=16_000_000, values=500_000)
# Directories and files that every node or process has for itself, or that can be built again.
LOCAL_NAMES = ("owners", "control", "checkpoints", "engines")
MAX_CONFLICTS = 30
CONFLICT_PAUSE_SECONDS = 0.1


class FilePart(FileModel):
    """Object with consecutive bytes of a file.

    Attributes:
        name: the object's name within the run.
        bytes: its size.
        sha256: the hash of its content.
        modified: time of the file's last change when this part was its last one, in seconds since
            the epoch by the uploader's clock.
    """

    name: str
    bytes: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    modified: Annotated[float, Field(ge=0)] = 0.0


Parts = Annotated[list[FilePart], Field(fail_fast=True)]
Files = dict[str, Annotated[list[FilePart], Field(fail_fast=True, min_length=1)]]


class RunOwner(FileModel):
    """Driver that owns a run.

    Attributes:
        number: the number of owners that the run has had. Objects of an owner are stored under it.
        process: the driver's process; None if the run was copied and never trained there.
        renewals: the number of times that the owner has renewed its lease.
        renewed: the time of the last renewal, in seconds since the epoch by the owner's clock.
        released: whether the owner has left.
    """

    number: Count
    process: OwnerMetadata | None = None
    renewals: Count = 0
    renewed: float = 0.0
    released: bool = False

    @property
    def folder(self) -> str:
        """Name under which the owner's objects are stored."""
        return owner_folder(self.number)

    @property
    def is_known_dead(self) -> bool:
        """True if the owner was a process of this machine and has ended."""
        return self.process is not None and is_dead(self.process.model_dump())


class RunHead(FileModel):
    """Content of HEAD.json.

    Attributes:
        revision: the number of changes of the head.
        nonce: a random text that is new in each change. By it, a writer whose connection broke
            finds out that its change has arrived.
        owner: the current or last owner.
        checkpoints: the name under which each checkpoint's objects are stored, by its folder name.
        files: the parts of each file, by its path in the run folder.
        additions: the parts of files that commands have written which do not own the run, such as
            translations of an evaluation. The owner makes them its files.
        index: the parts of a JSON file with more entries of `files`, for files that have not
            changed lately.
        stop_request: a random text that is new in each request to stop; None without a request.
        data_workers_request: the requested number of data workers, or None.
    """

    format: Annotated[str, Field(pattern=f"^{FORMAT}$")] = FORMAT
    revision: Count = 0
    nonce: str = ""
    owner: RunOwner = RunOwner(number=0, released=True)
    checkpoints: dict[str, str] = Field(default_factory=dict)
    files: Files = Field(default_factory=dict)
    additions: Files = Field(default_factory=dict)
    index: Parts = Field(default_factory=list)
    stop_request: str | None = None
    data_workers_request: Annotated[int, Field(gt=0, lt=100_000)] | None = None


class FileIndex(FileModel):
    """Content of the index: parts of files, by their paths in the run folder."""

    files: Files


class HeadObject:
    """HEAD.json of one run, read and changed by this process. Not thread-safe."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._etag: str | None = None
        self._head: RunHead | None = None

    def read(self) -> RunHead | None:
        """Return the current head, or None if there is no run.

        Raises:
            ObjectStoreError: the object store cannot be read.
            RunMismatchError: the head is damaged.
        """
        self._head, self._etag = None, None
        try:
            found = self.store.get(HEAD, HEAD_LIMITS.bytes)
        except ObjectMissingError:
            return None
        self._head, self._etag = _parse(found.data, f"{self.store.url}/{HEAD}"), found.etag
        return self._head

    def read_existing(self) -> RunHead:
        """Return the current head of a run that must exist.

        Raises:
            ObjectStoreError: the object store cannot be read.
            RunMismatchError: there is no run, or the head is damaged.
        """
        found = self.read()
        if found is None:
            raise RunMismatchError(
                f"{self.store.url} is no run: there is no {HEAD}. Name the URL of a run, such as "
                "s3://bucket/runs/phrasebook"
            )
        return found

    def change(self, change: Callable[[RunHead], RunHead]) -> RunHead:
        """Change the head by compare-and-swap, and return the result.

        If another process has changed the head meanwhile, `change` is called again with the new
        head. It may be called several times with heads that already contain its change, because an
        answer of the object store can be lost.

        Raises:
            ObjectStoreError: the object store does not answer, or the head keeps changing.
            Exception: errors of `change`.
        """
        for attempt in range(MAX_CONFLICTS):
            if self._etag is None:
                self.read()
            before = self._head or RunHead()
            after = change(before).model_copy(
                update={"revision": before.revision + 1, "nonce": secrets.token_hex(8)}
            )
            data = after.model_dump_json().encode()
            try:
                if self._etag is None:
                    self._etag = self.store.put_new(HEAD, data)
                else:
                    self._etag = self.store.put_over(HEAD, data, self._etag)
            except ObjectConflictError:
                found = self.read()
                if found and found.nonce == after.nonce:
                    return found  # the change had arrived, but not its answer
                time.sleep(CONFLICT_PAUSE_SECONDS * random.SystemRandom().uniform(0.0, attempt))
            except ObjectStoreError:
                self._etag = None  # unknown whether the change has arrived
                raise
            else:
                self._head = after
                return after
        raise ObjectStoreError(
            f"{self.store.url}/{HEAD} was changed by other processes {MAX_CONFLICTS} times in a row"
        )


def owner_folder(number: int) -> str:
    """Return the name under which the objects of an owner are stored."""
    return f"owners/{number:08d}"


def owner_of(name: str) -> int | None:
    """Return the number of the owner whose object has this name, or None."""
    match name.split("/"):
        case ["owners", number, _, *_] if number.isdecimal():
            return int(number)
    return None


def unnamed_objects(
    objects: Iterable[str], parts: Iterable[FilePart], prefixes: Collection[str], number: int
) -> list[str]:
    """Return those of some objects that a head does not name, without those of later owners.

    Args:
        objects: their names.
        parts: the parts of all files that the head names.
        prefixes: the names under which the objects of its checkpoints are stored.
        number: the number of the last owner whose objects are returned.
    """
    named = {part.name for part in parts}
    checkpoints = tuple(f"{prefix}/" for prefix in prefixes)
    return [
        name
        for name in objects
        if (owner := owner_of(name)) is not None
        and owner <= number
        and name not in named
        and not name.startswith(checkpoints)
    ]


def _parse(data: bytes, label: str) -> RunHead:
    try:
        head = RunHead.model_validate(parse_object(data, HEAD_LIMITS))
    except ValueError as error:
        raise RunMismatchError(f"{label} is damaged: {error_summary(error)}") from error
    names = (head.files, head.additions, head.checkpoints, head.checkpoints.values())
    for name in chain.from_iterable(names):
        require_inside(name, label)
    for name in (*head.files, *head.additions):
        require_file(name, label)
    for name in head.checkpoints:
        if "/" in name:
            raise RunMismatchError(f"{label} is damaged: it names the checkpoint {name[:200]!r}")
    return head


def require_file(name: str, label: str) -> None:
    """Check that a path is that of a small file, which a head may list as one.

    Raises:
        RunMismatchError: it leads out of the run folder, or into a directory with other rules.
    """
    require_inside(name, label)
    if name.split("/", 1)[0] in LOCAL_NAMES:
        raise RunMismatchError(
            f"{label} is damaged: it names {name[:200]!r}, but files of {', '.join(LOCAL_NAMES)} "
            "are never listed as files of a run"
        )


def require_inside(name: str, label: str) -> None:
    """Check that a path leads to a file within the run folder.

    Raises:
        RunMismatchError: it leads out of the folder.
    """
    if path_escape(name) or not name or "//" in name or name.startswith("."):
        raise RunMismatchError(
            f"{label} is damaged: it names {name[:200]!r}, which leads out of the run's folder"
        )


def file_part(name: str, data: bytes, modified: float = 0.0) -> FilePart:
    """Describe an object with this content; see `FilePart` for the arguments."""
    digest = hashlib.sha256(data).hexdigest()
    return FilePart(name=name, bytes=len(data), sha256=digest, modified=modified)


def all_parts(*tables: dict[str, list[FilePart]]) -> Iterator[FilePart]:
    """Yield the parts of all files in some tables."""
    for table in tables:
        for parts in table.values():
            yield from parts
