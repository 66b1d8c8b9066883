"""A run in an object store as a local folder.

`RunPuller` writes the files that the head names, and for each checkpoint its `checkpoint.json` and
its part list; state files stay in the object store. Drivers start from such a folder, and commands
read one.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

from data_pipeline.storage.object_errors import ObjectMissingError
from data_pipeline.storage.object_store import ObjectStore
from data_pipeline.storage.regular_files import publish_folder, write_atomically
from foundation.location import Location
from foundation.shown_urls import show_as_url
from run_store.checkpoints.format import HEADER
from run_store.checkpoints.state_file import HEADER_LIMITS
from run_store.checkpoints.state_objects import PART_LIMITS, PARTS, PartList, read_parts
from run_store.errors import CheckpointError, NoRunError, RunMismatchError
from run_store.lease import RELEASED
from run_store.remote.files import FILES_AT_ONCE, KnownFiles, is_kept, local_files, read_object
from run_store.remote.head import HeadObject, RunHead, RunOwner
from run_store.remote.view_cache import ViewCache, locked
from run_store.run_copies import register_copy, view_folder
from run_store.run_url import MAX_RUN_BYTES, run_url

MAX_TRIES = 5  # maximum number of tries if the run's owner replaces objects meanwhile


class RunPuller:
    """Copy of a run's files in a local folder, which is brought up to date by `pull`."""

    def __init__(
        self,
        store: ObjectStore,
        files: KnownFiles,
        *,
        keeps_jobs: bool = False,
        wants: Callable[[str], bool] = lambda name: True,
        with_checkpoints: bool = True,
        max_bytes: int = MAX_RUN_BYTES,
    ) -> None:
        """Prepare to pull into a folder.

        Args:
            files: the files of the folder.
            keeps_jobs: whether the files of jobs that the folder has are kept unchanged.
            wants: returns whether a file is needed, by its path in the run folder.
            with_checkpoints: whether checkpoints are needed.
            max_bytes: maximum size of all files in the folder.
        """
        self.folder = files.folder
        self._files = files
        self._keeps_jobs = keeps_jobs
        self._wants = wants
        self._with_checkpoints = with_checkpoints
        self._max_bytes = max_bytes
        self._store = store
        self._head = HeadObject(store)
        register_copy(self.folder, store.url)

    def pull(self, head: RunHead | None = None) -> RunHead:
        """Update the folder to the run's head, and return that head.

        Args:
            head: the run's head if the caller owns the run, so that it cannot change; otherwise it
                is read.

        Raises:
            RunMismatchError: there is no run, or it is damaged or too large.
            ObjectStoreError: the object store does not answer.
            OSError: the folder cannot be written.
        """
        for left in reversed(range(MAX_TRIES)):
            now = head or self._head.read_existing()
            try:
                self._pull(now)
            except ObjectMissingError:
                if not left or head:
                    raise
            else:
                return now
        raise AssertionError

    def _pull(self, head: RunHead) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        there = set(local_files(self.folder))
        kept = {name for name in there if self._keeps_jobs and is_kept(name)}
        wanted = {n: f for n, f in head.files.items() if n not in kept and self._wants(n)}
        size = sum(file.bytes for file in wanted.values())
        self.require_size(size)
        with ThreadPoolExecutor(FILES_AT_ONCE, "pull") as pool:
            for _ in pool.map(lambda file: self._files.fetch(self._store, *file), wanted.items()):
                pass
        for name in there - head.files.keys() - kept:
            (self.folder / name).unlink(missing_ok=True)
            self._files.files.pop(name, None)
        if not self._with_checkpoints:
            return
        checkpoints = self.folder / "checkpoints"
        checkpoints.mkdir(exist_ok=True)
        for name, prefix in head.checkpoints.items():
            pull_checkpoint(self._store, prefix, checkpoints / name)
            size += sum((checkpoints / name / file).stat().st_size for file in (PARTS, HEADER))
            self.require_size(size)
        for path in checkpoints.iterdir():
            if not path.name.startswith(".") and path.name not in head.checkpoints:
                shutil.rmtree(path, ignore_errors=True)

    def require_size(self, size: int) -> None:
        """Check that a run of some size may be copied.

        Raises:
            RunMismatchError: the size is above the limit.
        """
        if size > self._max_bytes:
            raise RunMismatchError(
                f"{self._store.url} has at least {size:,} bytes to copy, expected at most "
                f"{self._max_bytes:,}. If this is the run that you want, copy it with `transloom "
                "runs pull`, allow more with --max-bytes, and name the folder instead of the URL"
            )


def pull_checkpoint(store: ObjectStore, prefix: str, folder: Path) -> None:
    """Write a checkpoint's `checkpoint.json` and its part list to a local folder, if they differ.

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
            return
    data = read_object(store, f"{prefix}/{PARTS}", PART_LIMITS.bytes).data
    parts = PartList.parse(data, f"{url}/{PARTS}").model_copy(update={"url": url})
    header = read_object(store, f"{prefix}/{HEADER}", HEADER_LIMITS.bytes).data
    unfinished = folder.with_name(f".unfinished-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    (unfinished / PARTS).write_bytes(parts.to_json())
    (unfinished / HEADER).write_bytes(header)
    shutil.rmtree(folder, ignore_errors=True)
    publish_folder(unfinished, folder)


class RunView(RunPuller):
    """Copy of a run for commands that read runs; several processes may share it.

    ::

        view = RunView("s3://bucket/runs/phrasebook")
        view.refresh()
        RunFolder(view.folder)
    """

    def __init__(
        self,
        url: str,
        wants: Callable[[str], bool] = lambda name: True,
        *,
        with_checkpoints: bool = True,
    ) -> None:
        """Prepare a view, without a request; see `RunPuller` for the arguments."""
        self.url = run_url(url)
        folder = view_folder(self.url)
        store, known = ObjectStore(self.url), KnownFiles(folder)
        super().__init__(store, known, wants=wants, with_checkpoints=with_checkpoints)
        show_as_url(folder, self.url)
        self._cache = _view_cache(folder.parents[1])
        self._seen: RunHead | None = None
        self._seen_at = 0.0

    def refresh(self) -> RunHead:
        """Bring the copy up to date; see `pull` for the errors."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            head = self.pull()
            if self._seen is None or self._seen.owner != head.owner:
                _write_owner(self.folder / "owners", head.owner)
        self._seen, self._seen_at = head, time.time()
        return head

    def require_size(self, size: int) -> None:
        self._cache.reserve(self.folder, size)

    def preserve(self) -> None:
        """Keep the age of the owner's heartbeat constant while the object store does not answer.

        Otherwise the run would seem to be abandoned.
        """
        if self._seen and self._seen.owner.process and not self._seen.owner.released:
            now = self._seen.owner.renewed + time.time() - self._seen_at
            with suppress(OSError):
                os.utime(self.folder / "owners" / _owner_file(self._seen.owner), (now, now))


_view_cache = cache(ViewCache)  # one cache per folder, shared by all views of this process


def run_view(url: str, *, may_be_missing: bool = False) -> Path:
    """Return a local copy of a run in an object store, after bringing it up to date.

    Args:
        may_be_missing: whether to return a path without a folder if the run does not exist, instead
            of raising an error.
    """
    view = RunView(url)
    try:
        view.refresh()
    except NoRunError:
        if not may_be_missing:
            raise
        shutil.rmtree(view.folder, ignore_errors=True)
    return view.folder


def _write_owner(owners: Path, owner: RunOwner) -> None:
    """Write the owner's file in the form in which `run_store.lease` writes it."""
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
