"""Copies of whole runs, with all checkpoints, between a folder and an object store.

::

    push   folder ─▶ objects under the number of the next owner ─▶ HEAD.json, last
    pull   objects ─▶ hidden folder next to the target ─▶ renamed, last

Both verify each state file by its sha256, and continue after an interruption. The target has the
complete run at the end, or what it had before.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from data_pipeline.storage.object_errors import ObjectMissingError
from data_pipeline.storage.object_store import ObjectStore
from data_pipeline.storage.regular_files import sync_to_disk
from foundation.file_model import SMALL, error_summary
from trainer.checkpoints.checkpoint import Checkpoint, sha256_of
from trainer.checkpoints.commit import DAMAGED
from trainer.checkpoints.folder_names import list_averages, list_checkpoints, step_of
from trainer.checkpoints.format import HEADER
from trainer.checkpoints.lease import Lease
from trainer.checkpoints.state_file import HEADER_LIMITS, FileRecord
from trainer.checkpoints.state_objects import PARTS, PartList, UploadedFile, upload_state_file
from trainer.errors import DamagedCheckpointError, RunMismatchError
from trainer.runs.folder import RunFolder, RunMetadata
from trainer.runs.remote import lease
from trainer.runs.remote.changes import next_folder
from trainer.runs.remote.files import (
    MAX_FILES,
    UNFINISHED,
    WARNING_SHARE,
    FileObjects,
    Files,
    KnownFiles,
    local_files,
    new_file,
    put_file,
    read_chunk,
    reusable_chunks,
    storable_files,
    too_many_files,
)
from trainer.runs.remote.head import (
    MAX_OBJECTS,
    MAX_SWEEP_SECONDS,
    HeadObject,
    RunHead,
    RunOwner,
    unnamed_objects,
)
from trainer.runs.remote.probe import probe_store
from trainer.runs.remote.pull import FILES_AT_ONCE, MAX_TRIES, RunPuller
from trainer.runs.run_url import MAX_RUN_BYTES, run_url

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class TransferSummary:
    """Result of a copy.

    Attributes:
        checkpoints: the number of checkpoints of the copy, averages included.
        files: the number of other files.
        bytes: the size of all of them.
    """

    checkpoints: int
    files: int
    bytes: int


def push_run(
    folder: Path,
    url: str,
    report: Report = lambda done, total: None,
    announce: Callable[[str], None] = lambda text: None,
) -> TransferSummary:
    """Copy a run folder to an object store.

    A run there is brought up to date if it is the same run and not ahead of the folder. Its other
    checkpoints and files stay.

    Args:
        report: receives the number of bytes of checkpoints that are copied, and of all of them.
        announce: receives a message about a wait for another owner's lease.

    Raises:
        RunInUseError: a process owns the run in the folder or in the object store.
        RunMismatchError: the folder has no run, the URL has another run or newer checkpoints, or
            the object store cannot hold runs.
        CheckpointError: a checkpoint in the folder is damaged.
        ObjectStoreError: the object store does not answer, or cannot be written.
        OSError: the folder cannot be read.
    """
    store = ObjectStore(run_url(url))
    run = RunFolder(folder)
    card = run.card()
    probe_store(store)
    with Lease(folder, announce, trains=False):
        return _Push(store, run, card, report).push(announce)


class _Push:
    """One copy of a run folder to an object store, by the owner of the folder."""

    def __init__(
        self, store: ObjectStore, run: RunFolder, card: RunMetadata, report: Report
    ) -> None:
        self._store = store
        self._run = run
        self._card = card
        self._report = report
        self._head = HeadObject(store)
        self._done = 0
        paths = [*list_checkpoints(run.checkpoints), *list_averages(run.checkpoints)]
        self._checkpoints = [Checkpoint(path) for path in paths]
        self._total = sum(_bytes_of(checkpoint) for checkpoint in self._checkpoints)

    def push(self, announce: Callable[[str], None]) -> TransferSummary:
        owner = lease.wait_until_abandoned(self._head, announce)
        seen = self._head.read() or RunHead()
        self._require_same_run(seen)
        names = storable_files(self._run.path)
        if (count := len(seen.files.keys() | set(names))) > MAX_FILES:
            raise too_many_files(count)
        if count >= WARNING_SHARE * MAX_FILES:
            announce(f"The run has {count:,} small files, and can have {MAX_FILES:,}")
        checkpoints = {
            checkpoint.path.name: self._push_checkpoint(checkpoint, seen)
            for checkpoint in self._checkpoints
        }
        with ThreadPoolExecutor(FILES_AT_ONCE, "push") as pool:
            pushed = pool.map(lambda name: self._push_file(name, seen), names)
            files = dict(zip(names, pushed, strict=True))
        new_owner = RunOwner(number=owner.number + 1, released=True)

        def change(now: RunHead) -> RunHead:
            if now.owner not in (owner, new_owner):
                raise RunMismatchError(
                    f"{self._store.url} was changed meanwhile by {lease.owner_text(now.owner)}, and"
                    " nothing was pushed. Start the same command again"
                )
            return RunHead(
                owner=new_owner,
                checkpoints={**seen.checkpoints, **checkpoints},
                files=seen.files | files,
            )

        self._delete_garbage(self._head.change(change))
        size = sum(file.bytes for file in files.values())
        return TransferSummary(len(checkpoints), len(files), size + self._total)

    def _require_same_run(self, seen: RunHead) -> None:
        """Check that the URL has no other run, and none that is ahead of the folder."""
        if not seen.files and not seen.checkpoints:
            return
        url, here = self._store.url, self._run.path
        there = _card_of(self._store, seen.files)
        if there is None or there.id != self._card.id:
            other = (
                f"the run {there.name} with id {there.id}" if there else "a run without run.json"
            )
            raise RunMismatchError(
                f"{url} has {other}, but {here} has the run {self._card.name} with id "
                f"{self._card.id}. Name a URL at which there is no run"
            )
        newest = max(
            (step_of(Path(n)) for n in seen.checkpoints if n.startswith("step-")), default=0
        )
        ours = max(map(step_of, list_checkpoints(self._run.checkpoints)), default=0)
        if newest > ours:
            raise RunMismatchError(
                f"{url} has a checkpoint of step {newest}, but the newest one of {here} is of step "
                f"{ours}, so the run would go back. Copy the newer run with `transloom runs pull "
                f"{url} FOLDER`, or push to another URL"
            )

    def _push_checkpoint(self, checkpoint: Checkpoint, seen: RunHead) -> str:
        """Upload a checkpoint unless it is there, and return the name of its objects."""
        path = checkpoint.path
        header = (path / HEADER).read_bytes()
        before = seen.checkpoints.get(path.name)
        if before:
            with suppress(ObjectMissingError):
                found = self._store.get(f"{before}/{HEADER}", HEADER_LIMITS.bytes)
                if found.data == header:
                    self._advance(_bytes_of(checkpoint))
                    return before
        # The parts that an interrupted push has left are of verified files with these hashes.
        digest = hashlib.sha256(header).hexdigest()[:16]
        prefix = f"{next_folder(seen)}/{path.name}-{digest}"
        objects = ObjectStore(f"{self._store.url}/{prefix}")
        there = {object.name: object.bytes for object in objects.list()}
        files = [
            self._push_state_file(objects, checkpoint, f, there) for f in checkpoint.header.files
        ]
        objects.put(PARTS, PartList(files=files).to_json())
        objects.put(HEADER, header)
        return prefix

    def _push_state_file(
        self,
        objects: ObjectStore,
        checkpoint: Checkpoint,
        record: FileRecord,
        there: dict[str, int],
    ) -> UploadedFile:
        if checkpoint.objects is None:
            checkpoint.verify_file(record)
            path = checkpoint.path / record.name
            return upload_state_file(objects, path, record, there, self._advance)
        with tempfile.TemporaryDirectory() as folder:  # a copy of a run in an object store
            path = Path(folder) / record.name
            _fetch_state_file(checkpoint, record, path, lambda size: None)
            return upload_state_file(objects, path, record, there, self._advance)

    def _push_file(self, name: str, seen: RunHead) -> FileObjects:
        path, stored = self._run.path / name, seen.files.get(name)
        known = reusable_chunks(path, stored) if stored else []
        return put_file(self._store, name, path, seen.owner.number + 1, known)

    def _delete_garbage(self, head: RunHead) -> None:
        """Delete what interrupted copies and former owners have left."""
        objects = (
            found.name for found in self._store.list(most=MAX_OBJECTS, seconds=MAX_SWEEP_SECONDS)
        )
        prefixes = head.checkpoints.values()
        self._store.delete(unnamed_objects(objects, head.files, prefixes, head.owner.number))

    def _advance(self, size: int) -> None:
        self._done += size
        self._report(self._done, self._total)


def pull_run(
    url: str,
    folder: Path,
    report: Report = lambda done, total: None,
    announce: Callable[[str], None] = lambda text: None,
    max_bytes: int = MAX_RUN_BYTES,
) -> TransferSummary:
    """Copy a run from an object store into a new folder, as an ordinary run folder.

    Args:
        report: receives the number of bytes of checkpoints that are copied, and of all of them.
        announce: receives a message about a checkpoint that is left out.
        max_bytes: maximum size of the copy.

    Raises:
        RunMismatchError: there is no such run, it is damaged or too large, or the folder is not
            empty.
        CheckpointError: a checkpoint is damaged, or cannot be read.
        ObjectStoreError: the object store does not answer.
        OSError: the folder cannot be written.
    """
    store = ObjectStore(run_url(url))
    target = folder.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunMismatchError(f"{folder} is a file or a folder with files: name a new folder")
    digest = hashlib.sha256(store.url.encode()).hexdigest()[:16]
    unfinished = target.with_name(f".{target.name}.{digest}{UNFINISHED}")
    _require_own_folder(unfinished)
    remedy = " If this is the run that you want, allow more with --max-bytes"
    known = KnownFiles(unfinished)
    puller = RunPuller(store, known, max_bytes=max_bytes, remedy=remedy)
    for left in reversed(range(MAX_TRIES)):
        head = puller.pull()
        try:
            summary = _pull_checkpoints(puller, head, report, announce)
            break
        except DamagedCheckpointError:
            # A run that trains may have removed the checkpoint meanwhile.
            if not left or (HeadObject(store).read() or head).checkpoints == head.checkpoints:
                raise
    size = 0
    files = list(local_files(unfinished))
    for name in files:
        sync_to_disk(unfinished / name)
        size += (unfinished / name).stat().st_size
    unfinished.replace(target)  # also replaces an existing empty folder
    sync_to_disk(target.parent)
    return TransferSummary(summary.checkpoints, len(files), summary.bytes + size)


def _require_own_folder(unfinished: Path) -> None:
    """Check that the folder of an interrupted copy is one of this user's, and no link.

    Raises:
        RunMismatchError: another user may have made it.
    """
    with suppress(FileNotFoundError):
        status = unfinished.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise RunMismatchError(
                f"{unfinished} is not a folder of yours, expected one that an interrupted copy has "
                "left, or nothing. Remove it, or name another target"
            )


def _pull_checkpoints(
    puller: RunPuller, head: RunHead, report: Report, announce: Callable[[str], None]
) -> TransferSummary:
    """Fetch the state files of all checkpoints, then remove the part lists."""
    checkpoints = []
    for name in head.checkpoints:
        path = puller.folder / "checkpoints" / name
        if name.startswith(DAMAGED):
            announce(f"the damaged checkpoint {name} is left out")
            shutil.rmtree(path, ignore_errors=True)
        else:
            checkpoints.append(Checkpoint(path))
    done, total = 0, sum(_bytes_of(checkpoint) for checkpoint in checkpoints)
    puller.require_size(total)

    def advance(size: int) -> None:
        nonlocal done
        done += size
        report(done, total)

    for checkpoint in checkpoints:
        for record in checkpoint.header.files:
            path = checkpoint.path / record.name
            if _is_intact(path, record):
                advance(record.bytes)
            else:
                _fetch_state_file(checkpoint, record, path, advance)
    for checkpoint in checkpoints:
        (checkpoint.path / PARTS).unlink()
        Checkpoint(checkpoint.path).verify_sizes()
        sync_to_disk(checkpoint.path)
    return TransferSummary(len(checkpoints), 0, total)


def _fetch_state_file(
    checkpoint: Checkpoint, record: FileRecord, path: Path, advance: Callable[[int], None]
) -> None:
    """Write a state file from an object store to `path`, where it appears complete and verified.

    Raises:
        CheckpointError: the file is damaged, or cannot be read.
    """
    assert checkpoint.objects is not None
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    with new_file(unfinished) as file:
        hashed = _HashingWriter(file, advance)
        checkpoint.objects.copy_file(record.name, cast("BinaryIO", hashed))
        file.flush()
        os.fsync(file.fileno())
    if hashed.sha256 != record.sha256:
        raise DamagedCheckpointError(
            f"{checkpoint.path / record.name} has sha256 {hashed.sha256}, but {HEADER} says "
            f"{record.sha256}: it is damaged"
        )
    unfinished.replace(path)


class _HashingWriter:
    """Writer that hashes and counts the bytes that it passes on."""

    def __init__(self, file: IO[bytes], advance: Callable[[int], None]) -> None:
        self._file = file
        self._advance = advance
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self._advance(len(data))
        return self._file.write(data)


def _card_of(store: ObjectStore, files: Files) -> RunMetadata | None:
    """Return the content of run.json of a run in an object store, or None without the file."""
    name = "run.json"
    file = files.get(name)
    if file is None or file.bytes > SMALL.bytes:
        return None
    data = b"".join(read_chunk(store, name, file, n) for n in range(len(file.chunks)))
    try:
        return RunMetadata.from_json(data)
    except ValueError as error:
        raise RunMismatchError(
            f"{store.url}/run.json is damaged: {error_summary(error)}"
        ) from error


def _is_intact(path: Path, record: FileRecord) -> bool:
    try:
        return path.stat().st_size == record.bytes and sha256_of(path) == record.sha256
    except OSError:
        return False


def _bytes_of(checkpoint: Checkpoint) -> int:
    return sum(record.bytes for record in checkpoint.header.files)
