"""HEAD.json of a run in an object store: its owner, and the names of all its objects.

The head is the only object that is written more than once, and changes only by compare-and-swap. So
it is the fence between drivers: a driver that has lost the run can still upload objects, but no
head will name them. Objects that the head does not name are garbage, which the owner deletes. The
driver reads the head every few seconds, when it changes it (see `run_store.remote.mirror`), and
finds the requests and files of other processes in it.
"""

import random
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from typing import Annotated

from pydantic import Field

from data_pipeline.storage.object_errors import (
    ObjectConflictError,
    ObjectMissingError,
    ObjectStoreError,
)
from data_pipeline.storage.object_store import ObjectInfo, ObjectStore
from foundation.file_model import Count, FileModel, JsonLimits, error_summary
from foundation.wording import counted
from run_store.errors import NoRunError, RunMismatchError
from run_store.lease import OwnerMetadata, is_dead
from run_store.remote.files import (
    MAX_FILES,
    Files,
    Time,
    name_problem,
    objects_of,
    read_object,
    too_many_files,
)
from run_store.remote.store_check import PROBES
from run_store.run_url import run_url

FORMAT = "transloom-head/3"
HEAD = "HEAD.json"
HEAD_LIMITS = JsonLimits(bytes=16_000_000, values=500_000, keys=MAX_FILES)
MAX_CHECKPOINTS = 20_000
# Limits on the list of all objects of a run that this process may write.
MAX_OBJECTS = 5_000_000
MAX_SWEEP_SECONDS = 3600.0
# Age from which the object of a probe is considered left by a killed process.
PROBE_SECONDS = 600.0
MAX_CONFLICTS = 30
CONFLICT_PAUSE_SECONDS = 0.1
_CHUNK = re.compile(r"[0-9]{5,}-([0-9]{1,8})-[0-9a-f]{32}")


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
    renewed: Time = 0.0
    released: bool = False

    @property
    def is_known_dead(self) -> bool:
        """True if the owner was a process of this machine and has ended."""
        return self.process is not None and is_dead(self.process.model_dump())


class RunHead(FileModel):
    """Content of HEAD.json.

    Attributes:
        revision: the number of changes of the head.
        nonce: a random text that is new in each change. After a broken connection, a writer finds
            out by it whether its change has arrived.
        owner: the current or last owner.
        checkpoints: the name under which each checkpoint's objects are stored, by its folder name.
        files: the objects of each small file, by its path in the run folder. Commands that do not
            own the run add files, such as translations of an evaluation, which the owner keeps.
        stop_request: a random text that is new in each request to stop, and the person who makes
            the request; None without a request.
        data_workers_request: the requested number of data workers, or None.
    """

    format: Annotated[str, Field(pattern=f"^{FORMAT}$")] = FORMAT
    revision: Count = 0
    nonce: str = ""
    owner: RunOwner = RunOwner(number=0, released=True)
    checkpoints: Annotated[dict[str, str], Field(max_length=MAX_CHECKPOINTS)] = Field(
        default_factory=dict
    )
    files: Annotated[Files, Field(max_length=MAX_FILES)] = Field(default_factory=dict)
    stop_request: str | None = None
    data_workers_request: Annotated[int, Field(gt=0, lt=100_000)] | None = None


class HeadObject:
    """HEAD.json of one run, read and changed by this process. Not thread-safe.

    Attributes:
        changed: the heads to which the last change was applied. If the change has succeeded, the
            last of them was replaced.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._etag: str | None = None
        self._head: RunHead | None = None
        self.changed: list[RunHead] = []

    def read(self) -> RunHead | None:
        """Return the current head, or None if there is no run.

        Raises:
            ObjectStoreError: the object store cannot be read.
            RunMismatchError: the head is damaged.
        """
        self._head, self._etag = None, None
        try:
            found = read_object(self.store, HEAD, HEAD_LIMITS.bytes)
        except ObjectMissingError:
            return None
        self._head, self._etag = _parse(found.data, f"{self.store.url}/{HEAD}"), found.etag
        return self._head

    def read_existing(self) -> RunHead:
        """Return the current head of a run that must exist.

        Raises:
            ObjectStoreError: the object store cannot be read.
            NoRunError: there is no run.
            RunMismatchError: the head is damaged.
        """
        found = self.read()
        if found is None:
            raise NoRunError(
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
            RunMismatchError: readers would refuse the new head, or the current one is damaged.
            Exception: errors of `change`.
        """
        self.changed = []
        for attempt in range(MAX_CONFLICTS):
            if self._etag is None:
                self.read()
            before = self._head or RunHead()
            after = change(before).model_copy(
                update={"revision": before.revision + 1, "nonce": secrets.token_hex(8)}
            )
            self.changed.append(before)
            data = after.model_dump_json().encode()
            self._require_readable(after, data)
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

    def delete_replaced(self, *, with_files: bool = True) -> None:
        """Delete the objects of checkpoints and files that the last change replaced or removed.

        Args:
            with_files: whether to delete the objects of files, too.

        Raises:
            ObjectStoreError: the object store does not answer.
        """
        before, now = self.changed[-1], self._head or RunHead()
        for prefix in {*before.checkpoints.values()} - {*now.checkpoints.values()}:
            self.store.delete([found.name for found in self.store.list(f"{prefix}/")])
        if with_files:
            self.store.delete(objects_of(before.files) - objects_of(now.files))

    def _require_readable(self, head: RunHead, data: bytes) -> None:
        if len(head.files) > MAX_FILES:
            raise too_many_files(len(head.files))
        count, size = len(head.checkpoints), len(data)
        if count > MAX_CHECKPOINTS or size > HEAD_LIMITS.bytes:
            raise RunMismatchError(
                f"{self.store.url}/{HEAD} would have {counted(count, 'checkpoint')} in {size:,} "
                f"bytes, expected at most {MAX_CHECKPOINTS:,} in {HEAD_LIMITS.bytes:,}. Remove "
                "some with `transloom checkpoints remove`, or keep fewer with checkpoints.keep_last"
            )


def owners_change(
    now: RunHead,
    *,
    before: Files,
    files: Files,
    gone: Collection[str],
    published: Mapping[str, str],
    removed: Collection[str],
    moved_aside: Mapping[str, str],
) -> RunHead:
    """Return a head with the owner's changes; they may be applied to several heads in turn.

    Args:
        now: the head that is replaced.
        before: the files of the head that the owner has seen. A file of `now` that differs was
            added by another process, and stays unless the owner has changed it, too.
        files: the owner's files.
        gone: the names of the files that the owner has removed.
        published: the name under which each new checkpoint's objects are stored, by its folder
            name.
        removed: the names of the checkpoints to remove.
        moved_aside: the new names of damaged checkpoints, by their former names.
    """
    present = {moved_aside.get(name, name): prefix for name, prefix in now.checkpoints.items()}
    kept = {name: prefix for name, prefix in present.items() if name not in removed}
    others = {
        name: file
        for name, file in now.files.items()
        if name not in gone or file != before.get(name)
    }
    changed = {name: file for name, file in files.items() if file != before.get(name)}
    return now.model_copy(
        update={
            "files": others | changed,
            "checkpoints": kept | dict(published),
            "stop_request": None,
            "data_workers_request": None,
        }
    )


def owner_folder(number: int) -> str:
    """Return the name under which the objects of an owner are stored."""
    return f"owners/{number:08d}"


def owner_of(name: str) -> int | None:
    """Return the number of the owner whose object has this name, or None."""
    match name.split("/"):
        case ["owners", number, _, *_] if number.isdecimal():
            return int(number)
        case [_, *_, chunk] if found := _CHUNK.fullmatch(chunk):
            return int(found[1])
    return None


def delete_unnamed(
    store: ObjectStore,
    files: Files,
    prefixes: Collection[str],
    number: int,
    is_kept: Callable[[str], bool] = lambda name: False,
) -> None:
    """Delete objects that the head does not name, except objects of later owners.

    Args:
        files: the files that the head names.
        prefixes: the names under which the objects of the head's checkpoints are stored.
        number: the number of the last owner whose objects are deleted.
        is_kept: returns whether to keep an object that the head does not name.

    Raises:
        ObjectStoreError: the object store does not answer, or has too many objects.
    """
    named, checkpoints = objects_of(files), tuple(f"{prefix}/" for prefix in prefixes)
    objects = list(store.list(most=MAX_OBJECTS, seconds=MAX_SWEEP_SECONDS))
    now = max((found.modified for found in objects), default=0.0)  # time by the store's clock

    def is_garbage(found: ObjectInfo) -> bool:
        if found.name.startswith(f"{PROBES}/"):
            return found.modified < now - PROBE_SECONDS
        owner = owner_of(found.name)
        is_named = found.name in named or found.name.startswith(checkpoints)
        return owner is not None and owner <= number and not is_named and not is_kept(found.name)

    store.delete([found.name for found in objects if is_garbage(found)])


def _parse(data: bytes, label: str) -> RunHead:
    try:
        head = RunHead.from_json(data, HEAD_LIMITS)
    except ValueError as error:
        raise RunMismatchError(f"{label} is damaged: {error_summary(error)}") from error
    problems = {name: name_problem(name) for name in head.files}
    for name, prefix in head.checkpoints.items():
        problems[name] = name_problem(name) or ("is no folder's name" if "/" in name else None)
        problems[prefix] = name_problem(prefix.removeprefix("owners/"))
    for path, problem in problems.items():
        if problem:
            raise RunMismatchError(f"{label} is damaged: it names {path[:200]!r}, which {problem}")
    return head


def request_stop(url: str, by: str) -> None:
    """Ask the driver to save a checkpoint and stop the run.

    Args:
        by: the person who asks, as in `StopOrder`.

    Raises:
        RunMismatchError: there is no such run, or no driver owns it.
        ObjectStoreError: the object store does not answer, or cannot be written.
    """
    _request(url, {"stop_request": f"{secrets.token_hex(8)} {by}"})


def request_data_workers(url: str, count: int) -> None:
    """Ask the driver for a number of data workers.

    Raises:
        RunMismatchError: there is no such run, or no driver owns it.
        ObjectStoreError: the object store does not answer, or cannot be written.
    """
    _request(url, {"data_workers_request": count})


def _request(url: str, update: dict[str, str | int]) -> None:
    store = ObjectStore(run_url(url))

    def change(now: RunHead) -> RunHead:
        if now.owner.released or now.owner.is_known_dead:
            raise RunMismatchError(
                f"{store.url} is not being trained, so nothing can receive the request. "
                f"`transloom status {store.url}` shows its state"
            )
        return now.model_copy(update=update)

    HeadObject(store).change(change)
