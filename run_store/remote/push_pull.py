"""Copies of whole runs, with all checkpoints, between a folder and an object store.

::

    push   folder ─▶ objects under the number of the next owner ─▶ HEAD.json, last
    pull   objects ─▶ hidden folder next to the target ─▶ renamed, last

Both verify each state file by its sha256, and continue after an interruption. The target is
complete at the end, or unchanged.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.storage.object_store import ObjectStore
from data_pipeline.storage.regular_files import publish_folder
from foundation.file_model import SMALL
from foundation.shown_urls import show_as_url
from run_store.checkpoints.checkpoint import Checkpoint, compare_hash
from run_store.checkpoints.commit import DAMAGED
from run_store.checkpoints.folder_names import list_averages, list_checkpoints, step_of
from run_store.checkpoints.state_objects import PARTS
from run_store.errors import CheckpointError, DamagedCheckpointError, RunMismatchError
from run_store.folder import RunFolder
from run_store.lease import Lease
from run_store.remote import lease
from run_store.remote.changes import Addition
from run_store.remote.files import (
    MAX_FILES,
    UNFINISHED,
    WARNING_SHARE,
    KnownFiles,
    local_files,
    storable_files,
    too_many_files,
)
from run_store.remote.head import HeadObject, RunHead, RunOwner, delete_unnamed
from run_store.remote.pull import MAX_TRIES, RunPuller
from run_store.remote.store_check import probe_store
from run_store.run_url import MAX_RUN_BYTES, run_url

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class TransferSummary:
    """Result of a copy.

    Attributes:
        checkpoints: the number of checkpoints of the copy, averages included.
        files: the number of other files.
        bytes: the size of checkpoints and files together.
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

    If the object store has the same run, and it is not ahead of the folder, the stored run is
    brought up to date. Checkpoints and files that only the object store has are kept.

    Args:
        report: receives the number of bytes of checkpoints copied so far, and their total number.
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
    run.card()
    probe_store(store)
    with Lease(folder, announce, trains=False):
        head = HeadObject(store)
        seen = lease.wait_until_abandoned(head, announce)
        _require_same_run(store, seen, run)
        names = storable_files(run.path)
        if (count := len(seen.files.keys() | set(names))) > MAX_FILES:
            raise too_many_files(count)
        if count >= WARNING_SHARE * MAX_FILES:
            announce(f"The run has {count:,} small files, and can have {MAX_FILES:,}")
        paths = [*list_checkpoints(run.checkpoints), *list_averages(run.checkpoints)]
        checkpoints = [Checkpoint(path) for path in paths]
        progress = _Progress(checkpoints, report)
        addition = Addition(head, seen)
        for checkpoint in checkpoints:
            addition.put_checkpoint(checkpoint, progress.advance)
        addition.put_files(run.path, names)
        after = addition.commit(RunOwner(number=addition.number, released=True))
        delete_unnamed(store, after.files, after.checkpoints.values(), addition.number)
    size = sum(file.bytes for file in addition.files.values())
    return TransferSummary(len(checkpoints), len(names), size + progress.total)


class _Progress:
    """Progress of a copy: bytes of checkpoints copied so far, and in total."""

    def __init__(self, checkpoints: Sequence[Checkpoint], report: Report) -> None:
        self.total = sum(checkpoint.bytes for checkpoint in checkpoints)
        self._done = 0
        self._report = report

    def advance(self, size: int) -> None:
        self._done += size
        self._report(self._done, self.total)


def _require_same_run(store: ObjectStore, seen: RunHead, run: RunFolder) -> None:
    """Check that the URL has no run, or the same run that is not ahead of the folder."""
    if not seen.files and not seen.checkpoints:
        return
    url, card = store.url, run.card()
    with tempfile.TemporaryDirectory() as folder:
        known = KnownFiles(Path(folder))
        is_card, limit = "run.json".__eq__, SMALL.bytes
        RunPuller(store, known, wants=is_card, with_checkpoints=False, max_bytes=limit).pull(seen)
        show_as_url(known.folder, url)
        stored = RunFolder(known.folder).card()
    if stored.id != card.id:
        raise RunMismatchError(
            f"{url} has the run {stored.name} with id {stored.id}, but {run.path} has the run "
            f"{card.name} with id {card.id}. Name a URL at which there is no run"
        )
    steps = [step_of(Path(name)) for name in seen.checkpoints if name.startswith("step-")]
    newest = max(steps, default=0)
    local = max(map(step_of, list_checkpoints(run.checkpoints)), default=0)
    if newest > local:
        raise RunMismatchError(
            f"{url} has a checkpoint of step {newest}, but the newest one of {run.path} is of step "
            f"{local}, so the run would go back. Copy the newer run with `transloom runs pull "
            f"{url} FOLDER`, or push to another URL"
        )


def pull_run(
    url: str,
    folder: Path,
    report: Report = lambda done, total: None,
    announce: Callable[[str], None] = lambda text: None,
    max_bytes: int = MAX_RUN_BYTES,
) -> TransferSummary:
    """Copy a run from an object store into a new folder, as an ordinary run folder.

    Args:
        report: receives the number of bytes of checkpoints copied so far, and their total number.
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
    known = KnownFiles(unfinished)
    puller = RunPuller(store, known, max_bytes=max_bytes)
    for left in reversed(range(MAX_TRIES)):
        head = puller.pull()
        try:
            summary = _pull_checkpoints(puller, head, report, announce)
            break
        except DamagedCheckpointError:
            # The owner of the run may have removed the checkpoint meanwhile.
            if not left or (HeadObject(store).read() or head).checkpoints == head.checkpoints:
                raise
    files = list(local_files(unfinished))
    size = sum((unfinished / name).stat().st_size for name in files)
    publish_folder(unfinished, target)  # also replaces an existing empty folder
    return TransferSummary(summary.checkpoints, len(files), summary.bytes + size)


def _require_own_folder(unfinished: Path) -> None:
    """Check that the folder of an interrupted copy belongs to this user, and is not a link.

    Raises:
        RunMismatchError: another user may have created it.
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
    progress = _Progress(checkpoints, report)
    puller.require_size(progress.total)
    for checkpoint in checkpoints:
        for record in checkpoint.header.files:
            try:  # an interrupted copy may have left the file
                compare_hash(checkpoint.path, record, None)
                progress.advance(record.bytes)
            except CheckpointError:
                assert checkpoint.objects is not None
                path = checkpoint.path / record.name
                checkpoint.objects.download(record, path, progress.advance)
    for checkpoint in checkpoints:
        (checkpoint.path / PARTS).unlink()
        Checkpoint(checkpoint.path).verify_sizes()
    return TransferSummary(len(checkpoints), 0, progress.total)
