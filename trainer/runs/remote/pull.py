"""A run in an object store as a local folder.

`RunPuller` writes the files that the head names, and for each checkpoint its `checkpoint.json` and
its part list; state files stay in the object store. Drivers start from such a folder, and commands
read one.
"""

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from data_pipeline.storage.durable import write_atomically
from data_pipeline.storage.object_errors import ObjectMissingError
from data_pipeline.storage.object_store import ObjectStore
from foundation.file_model import error_summary
from foundation.location import Location
from foundation.shown_urls import show_as_url
from foundation.strict_json import parse_object
from trainer.checkpoints.format import HEADER
from trainer.checkpoints.lease import RELEASED
from trainer.checkpoints.state_file import HEADER_LIMITS
from trainer.checkpoints.state_objects import PART_LIMITS, PARTS, PartList, read_parts
from trainer.errors import CheckpointError, RunMismatchError
from trainer.runs.folder import RunFolder
from trainer.runs.remote.files import (
    JOBS,
    FileFetcher,
    UploadedFiles,
    is_kept,
    local_files,
    read_part,
)
from trainer.runs.remote.head import (
    HEAD_LIMITS,
    FileIndex,
    FilePart,
    HeadObject,
    RunHead,
    RunOwner,
    all_parts,
    require_file,
)
from trainer.runs.remote.location import run_url, view_folder

FILES_AT_ONCE = 8
MAX_TRIES = 5  # while the run's owner replaces objects
LOCK = ".lock"


class RunPuller:
    """Copy of a run's files in a local folder, which is brought up to date by `pull`."""

    def __init__(self, store: ObjectStore, folder: Path, *, keeps_jobs: bool = False) -> None:
        """Prepare to pull into a folder.

        Args:
            keeps_jobs: whether files of jobs that are in the folder stay as they are.
        """
        self.folder = folder
        self._keeps_jobs = keeps_jobs
        self._store = store
        self._head = HeadObject(store)
        self._fetcher = FileFetcher(store, folder)
        self._index: tuple[list[FilePart], dict[str, list[FilePart]]] = ([], {})

    def pull(
        self,
        head: RunHead | None = None,
        *,
        with_files: bool = True,
        without: tuple[str, ...] = (),
    ) -> RunHead:
        """Make the folder equal to the run, and return the head that it is equal to.

        Args:
            head: the run's head if the caller owns the run, so that it cannot change; otherwise it
                is read.
            with_files: whether to pull more than the checkpoints.
            without: directories of the run whose files are not needed.

        Raises:
            RunMismatchError: there is no run, or it is damaged.
            ObjectStoreError: the object store does not answer.
            OSError: the folder cannot be written.
        """
        for left in reversed(range(MAX_TRIES)):
            now = head or self._head.read_existing()
            try:
                self._pull(now, with_files=with_files, without=without)
            except ObjectMissingError:
                if not left or head:
                    raise
            else:
                return now
        raise AssertionError

    def fetch(self, name: str, parts: list[FilePart]) -> None:
        """Make one file equal to its parts; see `FileFetcher.fetch` for the errors."""
        self._fetcher.fetch(name, parts)

    def _pull(self, head: RunHead, *, with_files: bool, without: tuple[str, ...]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if with_files:
            files = self.files(head)
            there = set(local_files(self.folder))
            kept = {name for name in there if self._keeps_jobs and is_kept(name)}
            wanted = [
                name for name in files if name not in kept and name.partition("/")[0] not in without
            ]
            with ThreadPoolExecutor(FILES_AT_ONCE, "pull") as pool:
                for _ in pool.map(lambda name: self.fetch(name, files[name]), wanted):
                    pass
            for name in there - files.keys() - kept:
                (self.folder / name).unlink(missing_ok=True)
        checkpoints = self.folder / "checkpoints"
        checkpoints.mkdir(exist_ok=True)
        for name, prefix in head.checkpoints.items():
            pull_checkpoint(self._store, prefix, checkpoints / name)
        for path in checkpoints.iterdir():
            if not path.name.startswith(".") and path.name not in head.checkpoints:
                shutil.rmtree(path, ignore_errors=True)

    def files(self, head: RunHead) -> dict[str, list[FilePart]]:
        """Return the parts of all files of a run, also of those in the index."""
        return {**self.indexed(head), **head.files, **head.additions}

    def indexed(self, head: RunHead) -> dict[str, list[FilePart]]:
        """Return the parts of the files in the index of a head."""
        if self._index[0] != head.index:
            self._index = (head.index, read_index(self._store, head))
        return self._index[1]

    def remember_index(self, index: list[FilePart], files: dict[str, list[FilePart]]) -> None:
        """Keep the content of an index that the caller has written."""
        self._index = (index, files)


def read_index(store: ObjectStore, head: RunHead) -> dict[str, list[FilePart]]:
    """Read the index of a head.

    Raises:
        ObjectMissingError: the index has been replaced meanwhile.
        ObjectStoreError: the object store does not answer.
        RunMismatchError: the index is damaged.
    """
    data = b"".join(read_part(store, part) for part in head.index)
    if not data:
        return {}
    label = f"{store.url}/{head.index[0].name}"
    try:
        index = FileIndex.model_validate(parse_object(data, HEAD_LIMITS))
    except ValueError as error:
        raise RunMismatchError(f"{label} is damaged: {error_summary(error)}") from error
    for name in index.files:
        require_file(name, label)
    return index.files


def pull_checkpoint(store: ObjectStore, prefix: str, folder: Path) -> None:
    """Write a checkpoint's `checkpoint.json` and its part list to a local folder, if they differ.

    Raises:
        ObjectMissingError: the checkpoint has been removed meanwhile.
        ObjectStoreError: the object store does not answer.
        CheckpointError: the part list is damaged.
    """
    url = Location(f"{store.url}/{prefix}")
    with suppress(CheckpointError):
        there = read_parts(folder)
        if there and there.url == url and (folder / HEADER).exists():
            return
    parts = PartList.parse(
        store.get(f"{prefix}/{PARTS}", PART_LIMITS.bytes).data, f"{url}/{PARTS}"
    ).model_copy(update={"url": url})
    header = store.get(f"{prefix}/{HEADER}", HEADER_LIMITS.bytes).data
    unfinished = folder.with_name(f".unfinished-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    (unfinished / PARTS).write_bytes(parts.to_json())
    (unfinished / HEADER).write_bytes(header)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


class RunView(RunPuller):
    """Copy of a run for commands that read runs; several processes may share it.

    ::

        view = RunView("s3://bucket/runs/phrasebook")
        view.refresh()
        RunFolder(view.folder)
    """

    def __init__(self, url: str, without: tuple[str, ...] = ()) -> None:
        """Prepare a view without any request.

        Args:
            url: the run's URL.
            without: directories of the run whose files are not needed.
        """
        self.url = run_url(url)
        super().__init__(ObjectStore(self.url), view_folder(self.url))
        show_as_url(self.folder, self.url)
        self._without = without
        self._seen: RunHead | None = None
        self._seen_at = 0.0

    def refresh(self) -> RunHead:
        """Bring the copy up to date; see `pull` for the errors."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder / LOCK):
            head = self.pull(without=self._without)
            if self._seen is None or self._seen.owner != head.owner:
                _write_owner(self.folder / "owners", head.owner)
        self._seen, self._seen_at = head, time.time()
        return head

    def preserve(self) -> None:
        """Keep the age of the owner's heartbeat while the object store does not answer.

        Otherwise the run would seem to be abandoned.
        """
        if self._seen and self._seen.owner.process and not self._seen.owner.released:
            now = self._seen.owner.renewed + time.time() - self._seen_at
            with suppress(OSError):
                os.utime(self.folder / "owners" / _owner_file(self._seen.owner), (now, now))


def stored_run(run: RunFolder) -> RunFolder:
    """Return a folder with the run as it is stored now, only to read.

    This is the folder itself, or a view of a run in an object store. If there is no such run yet,
    the view is empty.

    Raises:
        ObjectStoreError: the object store does not answer.
        RunMismatchError: the run is damaged.
    """
    if run.url is None:
        return run
    view = RunView(run.url)
    if HeadObject(ObjectStore(view.url)).read() is None:
        shutil.rmtree(view.folder, ignore_errors=True)
    else:
        view.refresh()
    return RunFolder(view.folder, run.url)


def run_view(url: str) -> Path:
    """Return a local copy of a run in an object store, as up to date as the store."""
    view = RunView(url)
    view.refresh()
    return view.folder


def upload_job_files(run: RunFolder) -> None:
    """Upload the files of jobs in a run folder, unless a driver owns the run and does it.

    Raises:
        ObjectStoreError: the object store does not answer.
        RunMismatchError: the run is damaged.
        OSError: a file cannot be read.
    """
    assert run.url is not None
    store = ObjectStore(run.url)
    head = HeadObject(store)
    now = head.read() or RunHead()
    if not now.owner.released:
        return
    of_jobs = {name: parts for name, parts in now.files.items() if is_kept(name)}
    files = UploadedFiles(run.path, dict(of_jobs))

    def put(data: bytes) -> str:
        name = f"{now.owner.folder}/files/{JOBS}/{secrets.token_hex(8)}"
        store.put(name, data)
        return name

    for name in filter(is_kept, files.changed()):
        files.upload(name, put)

    def change(now: RunHead) -> RunHead:
        if not now.owner.released:
            return now
        return now.model_copy(update={"files": {**now.files, **files.parts}})

    named = {part.name for part in all_parts(head.change(change).files)}
    store.delete([part.name for part in all_parts(of_jobs, files.parts) if part.name not in named])


def _write_owner(owners: Path, owner: RunOwner) -> None:
    """Write the owner's file as `trainer.checkpoints.lease` does in a run folder."""
    owners.mkdir(exist_ok=True)
    name = _owner_file(owner)
    for former in owners.iterdir():
        if former.name != name:
            former.unlink(missing_ok=True)
    if owner.process is not None:
        write_atomically(owners / name, json.dumps(owner.process.model_dump()))
        os.utime(owners / name, (owner.renewed, owner.renewed))


def _owner_file(owner: RunOwner) -> str:
    return f"{owner.number:08d}{RELEASED if owner.released else '.json'}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes, if the file system has locks."""
    with path.open("ab") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
