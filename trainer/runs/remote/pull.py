"""A run in an object store as a local folder.

`RunPuller` writes the files that the head names, and for each checkpoint its `checkpoint.json` and
its part list; state files stay in the object store. Drivers start from such a folder, and commands
read one.
"""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

from data_pipeline.storage.object_errors import ObjectMissingError
from data_pipeline.storage.object_store import ObjectStore
from data_pipeline.storage.regular_files import write_atomically
from foundation.location import Location
from foundation.shown_urls import show_as_url
from trainer.checkpoints.format import HEADER
from trainer.checkpoints.lease import RELEASED
from trainer.checkpoints.run_copies import register_copy, view_folder
from trainer.checkpoints.state_file import HEADER_LIMITS
from trainer.checkpoints.state_objects import PART_LIMITS, PARTS, PartList, read_parts
from trainer.errors import CheckpointError, RunMismatchError
from trainer.runs.folder import RunFolder
from trainer.runs.remote.files import (
    FILES_AT_ONCE,
    Files,
    KnownFiles,
    is_kept,
    local_files,
    read_object,
)
from trainer.runs.remote.head import HeadObject, RunHead, RunOwner
from trainer.runs.remote.view_cache import MAX_CACHE_BYTES, ViewCache, locked
from trainer.runs.run_url import MAX_RUN_BYTES, run_url

MAX_TRIES = 5  # while the run's owner replaces objects


class RunPuller:
    """Copy of a run's files in a local folder, which is brought up to date by `pull`."""

    def __init__(
        self,
        store: ObjectStore,
        files: KnownFiles,
        *,
        keeps_jobs: bool = False,
        max_bytes: int = MAX_RUN_BYTES,
        remedy: str = "",
    ) -> None:
        """Prepare to pull into a folder.

        Args:
            files: the files of the folder.
            keeps_jobs: whether files of jobs that are in the folder stay as they are.
            max_bytes: maximum size of all files in the folder.
            remedy: a sentence for the error of a run that is larger.
        """
        self.folder = files.folder
        self._files = files
        self._keeps_jobs = keeps_jobs
        self._max_bytes = max_bytes
        self._remedy = remedy
        self._store = store
        self._head = HeadObject(store)
        register_copy(self.folder, store.url)

    def pull(
        self,
        head: RunHead | None = None,
        *,
        with_files: bool = True,
        without: tuple[str, ...] = (),
        only: tuple[str, ...] | None = None,
    ) -> RunHead:
        """Make the folder equal to the run, and return the head that it is equal to.

        Args:
            head: the run's head if the caller owns the run, so that it cannot change; otherwise it
                is read.
            with_files: whether to pull more than the checkpoints.
            without: directories of the run whose files are not needed.
            only: the only files that are needed, and no checkpoints; None for all.

        Raises:
            RunMismatchError: there is no run, or it is damaged or too large.
            ObjectStoreError: the object store does not answer.
            OSError: the folder cannot be written.
        """
        for left in reversed(range(MAX_TRIES)):
            now = head or self._head.read_existing()
            try:
                if only is not None:
                    self._pull_files({name: now.files[name] for name in only if name in now.files})
                else:
                    self._pull(now, now.files if with_files else None, without)
            except ObjectMissingError:
                if not left or head:
                    raise
            else:
                return now
        raise AssertionError

    def _pull(self, head: RunHead, files: Files | None, without: tuple[str, ...]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        size = 0
        if files is not None:
            there = set(local_files(self.folder))
            kept = {name for name in there if self._keeps_jobs and is_kept(name)}
            wanted = [
                name for name in files if name not in kept and name.partition("/")[0] not in without
            ]
            size = self._pull_files({name: files[name] for name in wanted})
            for name in there - files.keys() - kept:
                (self.folder / name).unlink(missing_ok=True)
                self._files.files.pop(name, None)
        checkpoints = self.folder / "checkpoints"
        checkpoints.mkdir(exist_ok=True)
        for name, prefix in head.checkpoints.items():
            size += pull_checkpoint(self._store, prefix, checkpoints / name)
            self.require_size(size)
        for path in checkpoints.iterdir():
            if not path.name.startswith(".") and path.name not in head.checkpoints:
                shutil.rmtree(path, ignore_errors=True)

    def _pull_files(self, files: Files) -> int:
        """Fetch some files, and return their size."""
        size = sum(file.bytes for file in files.values())
        self.require_size(size)
        with ThreadPoolExecutor(FILES_AT_ONCE, "pull") as pool:
            for _ in pool.map(lambda file: self._files.fetch(self._store, *file), files.items()):
                pass
        return size

    def require_size(self, size: int) -> None:
        """Check that a run of some size may be copied.

        Raises:
            RunMismatchError: it is larger than the limit.
        """
        if size > self._max_bytes:
            raise RunMismatchError(
                f"{self._store.url} has at least {size:,} bytes to copy, expected at most "
                f"{self._max_bytes:,}.{self._remedy}"
            )


def pull_checkpoint(store: ObjectStore, prefix: str, folder: Path) -> int:
    """Write a checkpoint's `checkpoint.json` and its part list to a local folder, if they differ.

    Returns:
        The size of both files in bytes.

    Raises:
        ObjectMissingError: the checkpoint has been removed meanwhile.
        ObjectStoreError: the object store does not answer.
        CheckpointError: the part list is damaged.
        RunMismatchError: a file is too large.
    """
    url = Location(f"{store.url}/{prefix}")
    with suppress(CheckpointError):
        there = read_parts(folder)
        if there and there.url == url and (folder / HEADER).exists():
            return _size_of(folder)
    parts = PartList.parse(
        read_object(store, f"{prefix}/{PARTS}", PART_LIMITS.bytes), f"{url}/{PARTS}"
    ).model_copy(update={"url": url})
    header = read_object(store, f"{prefix}/{HEADER}", HEADER_LIMITS.bytes)
    unfinished = folder.with_name(f".unfinished-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    (unfinished / PARTS).write_bytes(parts.to_json())
    (unfinished / HEADER).write_bytes(header)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return _size_of(folder)


def _size_of(checkpoint: Path) -> int:
    return sum((checkpoint / name).stat().st_size for name in (PARTS, HEADER))


class RunView(RunPuller):
    """Copy of a run for commands that read runs; several processes may share it.

    ::

        view = RunView("s3://bucket/runs/phrasebook")
        view.refresh()
        RunFolder(view.folder)
    """

    def __init__(
        self, url: str, without: tuple[str, ...] = (), only: tuple[str, ...] | None = None
    ) -> None:
        """Prepare a view without any request; see `pull` for the arguments."""
        self.url = run_url(url)
        remedy = (
            f" Copy it with `transloom runs pull {self.url} FOLDER`, and name the folder instead "
            "of the URL"
        )
        folder = view_folder(self.url)
        known = KnownFiles(folder)
        super().__init__(ObjectStore(self.url), known, max_bytes=MAX_CACHE_BYTES, remedy=remedy)
        show_as_url(self.folder, self.url)
        self._cache = _view_cache(self.folder.parents[1])
        self._without, self._only = without, only
        self._seen: RunHead | None = None
        self._seen_at = 0.0

    def refresh(self) -> RunHead:
        """Bring the copy up to date; see `pull` for the errors."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            head = self.pull(without=self._without, only=self._only)
            if self._seen is None or self._seen.owner != head.owner:
                _write_owner(self.folder / "owners", head.owner)
        self._seen, self._seen_at = head, time.time()
        return head

    def require_size(self, size: int) -> None:
        super().require_size(size)
        self._cache.reserve(self.folder, size)

    def preserve(self) -> None:
        """Keep the age of the owner's heartbeat while the object store does not answer.

        Otherwise the run would seem to be abandoned.
        """
        if self._seen and self._seen.owner.process and not self._seen.owner.released:
            now = self._seen.owner.renewed + time.time() - self._seen_at
            with suppress(OSError):
                os.utime(self.folder / "owners" / _owner_file(self._seen.owner), (now, now))


_view_cache = cache(ViewCache)  # one for each folder, which all views of this process share


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
