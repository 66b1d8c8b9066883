"""The driver's mirror of its run: it uploads files, publishes checkpoints, and renews the lease.

::

    run folder ──changed files──▶ objects ─┐
    ranks ──state files──▶ objects ────────┼──compare-and-swap──▶ HEAD.json ──▶ delete the rest
    committer ──complete checkpoint────────┘

One thread does all of it, at least every `RENEW_SECONDS`. Nothing waits for it except the end of
the run. If the object store does not answer, the next try includes everything that is missing.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from data_pipeline.storage.object_errors import ObjectMissingError, ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from foundation.periodic_thread import MAX_FAILURES_IN_A_ROW, PeriodicThread
from trainer.checkpoints.commit import DAMAGED
from trainer.checkpoints.final_save import final_save_attempts
from trainer.checkpoints.format import HEADER, CheckpointHeader, folder_name
from trainer.checkpoints.lease import RENEW_SECONDS
from trainer.checkpoints.state_objects import PARTS, PartList
from trainer.errors import LeaseLostError, RunMismatchError, TrainerError
from trainer.runs.folder import RunFolder
from trainer.runs.remote import lease
from trainer.runs.remote.changes import delete_below
from trainer.runs.remote.file_table import (
    MAX_ENTRIES,
    MAX_FILES,
    WARNING_SHARE,
    FilePart,
    Files,
    FileTable,
    IndexPart,
    all_parts,
    name_problem,
    put_part,
    too_many_files,
    usage,
    write_index,
)
from trainer.runs.remote.files import UploadedFiles
from trainer.runs.remote.head import (
    MAX_CHECKPOINTS,
    MAX_OBJECTS,
    MAX_SWEEP_SECONDS,
    HeadObject,
    RunHead,
    unnamed_objects,
)
from trainer.runs.remote.probe import PROBES, probe_store
from trainer.runs.remote.pull import RunPuller
from trainer.runs.remote.validation_archive import archive_validations
from trainer.runs.run_url import run_url

# If there are more files than `MAX_ENTRIES` in the head, those that changed least recently move to
# the index, except for this number.
ENTRIES_LEFT = 16
# Age at which the object of a probe was left by a killed process.
PROBE_SECONDS = 600.0
GIVE_UP_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class _Publication:
    """Checkpoint that all ranks have uploaded, to be named by the head."""

    header: CheckpointHeader
    parts: PartList
    prefix: str

    @property
    def name(self) -> str:
        return folder_name(self.header.step)


class RunMirror:
    """Mirror of a run folder in an object store, as a context manager of the run's owner.

    Entering acquires the run and makes the local folder equal to it; leaving uploads the rest and
    releases the run.

    Raises:
        RunInUseError: on entering, another process owns the run.
        RunMismatchError: on entering, the object store cannot hold runs.
        ObjectStoreError: on entering, the object store cannot be reached or written.
    """

    def __init__(self, url: str, folder: RunFolder, announce: Callable[[str], None]) -> None:
        """Prepare a mirror without any request.

        Args:
            url: the run's location in the object store.
            folder: the local folder, which this process owns.
            announce: receives messages about a wait for another owner, or about failures.
        """
        self.url = run_url(url)
        self._folder = folder
        self._announce = announce
        self._store = ObjectStore(self.url)
        self._head = HeadObject(self._store)
        self._puller = RunPuller(self._store, folder.path, keeps_jobs=True)
        self._files = UploadedFiles(folder.path)
        self._indexed: set[str] = set()  # files that the index names
        self._last_changes: dict[str, float] = {}
        self._taken: Files = {}  # files that other processes have added
        self._refused: set[str] = set()  # files that were announced as not stored
        self._garbage: list[str] = []  # objects that the head named before its last change
        self._publication: _Publication | None = None
        self._removed: set[str] = set()  # checkpoints to remove
        self._requests: set[str | int] = set()  # of other processes, not yet passed on
        self._sweep_requested = False
        self._attempt: str | None = None
        self._published: list[str] = []
        self._lost: TrainerError | None = None
        self._problem: str | None = None
        self._lock = threading.Lock()
        self._flushed = threading.Condition()
        self._rounds = 0
        self._thread = PeriodicThread(
            "mirror", RENEW_SECONDS, self._round, at_once=True, give_up=self._give_up
        )

    def __enter__(self) -> Self:
        probe_store(self._store)
        head = lease.acquire(self._head, self._announce)
        try:
            self.number = head.owner.number
            self._puller.pull(head, with_additions=False)  # the first round takes them
            indexed = self._puller.tables.indexed(head.files).keys()
            self._indexed = set(indexed - head.files.entries.keys())
            self._files.parts = self._puller.tables.files(head.files)
            self._files.mark_unchanged()
            self.current = head
            self._sweep()
        except BaseException:
            self._release()
            raise
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.stop()
        if self._lost is None:
            self._finish()
        elif not isinstance(self._lost, LeaseLostError):
            with suppress(TrainerError, OSError):
                self._release()

    @property
    def states_url(self) -> str:
        """Location under which the ranks upload the state files of this owner's checkpoints."""
        return f"{self.url}/{self.current.owner.folder}"

    def check(self) -> None:
        """Check that this process still owns the run, as far as it knows.

        Raises:
            LeaseLostError: another process owns the run now.
            TrainerError: the run's head is damaged, or the mirror keeps failing.
        """
        if self._lost:
            raise self._lost

    def publish(self, folder: str, header: CheckpointHeader, parts: PartList) -> None:
        """Name a complete checkpoint in the head as soon as possible; replaces an older one.

        Args:
            folder: the name under which the ranks have uploaded its state files.
            header: its header, with all files.
        """
        prefix = f"{self.current.owner.folder}/{folder}"
        with self._lock:
            self._publication = _Publication(header, parts, prefix)
        self._thread.wake()

    def retract(self, step: int) -> None:
        """Withdraw a checkpoint that is not published yet."""
        with self._lock:
            publication = self._publication
            if publication and publication.header.step == step:
                self._publication = None

    def take_published(self) -> list[str]:
        """Return the names of checkpoints that were published since the last call."""
        with self._lock:
            names, self._published = self._published, []
        return names

    def remove(self, names: Collection[str]) -> None:
        """Remove checkpoints, by their folder names, from the head and then from the store."""
        with self._lock:
            self._removed |= set(names)
        self._thread.wake()

    def flush(self, seconds: float, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Upload everything that exists now; return False if this did not succeed in time.

        Args:
            give_up: returns True to end the wait.
        """
        deadline = time.monotonic() + seconds
        with self._flushed:
            wanted = self._rounds + 2  # the round in progress may have missed the latest changes
            while self._rounds < wanted and not self._lost:
                self._thread.wake()
                left = deadline - time.monotonic()
                if left <= 0.0 or give_up():
                    return False
                self._flushed.wait(min(left, GIVE_UP_POLL_SECONDS))
        return not self._lost

    def begin_attempt(self, attempt: str) -> None:
        """Delete what ranks of former attempts have uploaded without success, some time from now.

        Args:
            attempt: the name of the attempt that begins, whose uploads are kept.
        """
        self._attempt = attempt
        self._sweep_requested = True

    def _sweep(self) -> None:
        """Delete objects of this owner and of former owners that the head does not name.

        What ranks of the current attempt upload is kept.
        """
        self._sweep_requested = False
        prefixes = list(self.current.checkpoints.values())
        with self._lock:
            if self._publication:
                prefixes.append(self._publication.prefix)
        objects = list(self._store.list(most=MAX_OBJECTS, seconds=MAX_SWEEP_SECONDS))
        named = [*self._named_parts(), *all_parts(self._additions())]
        unnamed = unnamed_objects((found.name for found in objects), named, prefixes, self.number)
        garbage = [name for name in unnamed if not self._is_of_attempt(name)]
        now = max((found.modified for found in objects), default=0.0)  # by the store's clock
        garbage += [
            found.name
            for found in objects
            if found.name.startswith(f"{PROBES}/") and found.modified < now - PROBE_SECONDS
        ]
        self._store.delete(garbage)

    def _named_parts(self) -> Iterator[FilePart]:
        """Yield the objects of all files, including the indexes."""
        return all_parts(self._files.parts, {"": self._named_indexes()})

    def _is_of_attempt(self, name: str) -> bool:
        """Return whether ranks of the current attempt have uploaded an object."""
        match name.split("/"):
            case ["owners", _, folder, _, *_]:
                return self._attempt is not None and folder.endswith(f"-{self._attempt}")
        return False

    def _round(self) -> None:
        """Upload what has changed, change the head, and delete what the former head named."""
        if self._lost:
            return
        try:
            self._upload_and_swap()
        except TrainerError as error:
            self._lose(error)
        except OSError as error:
            if self._problem is None:
                self._announce(
                    f"{error}. Training goes on; checkpoints and the record are uploaded when the "
                    "object store answers again"
                )
            self._problem = str(error)
        else:
            if self._problem is not None:
                self._announce(f"{self.url} answers again, and has received everything")
            self._problem = None
            with self._flushed:
                self._rounds += 1
                self._flushed.notify_all()

    def _give_up(self, error: Exception) -> None:
        self._lose(
            TrainerError(
                f"The mirror of {self.url} has failed {MAX_FAILURES_IN_A_ROW} times in a row: "
                f"{error!r}. Nothing is lost: checkpoints and record are in {self._folder.path}; "
                "start the same command again on this machine"
            )
        )

    def _lose(self, error: TrainerError) -> None:
        """Stop uploading; `check` raises the error from now on."""
        with self._flushed:
            self._lost = error
            self._flushed.notify_all()

    def _upload_and_swap(self) -> None:
        with self._lock:
            publication, removed = self._publication, set(self._removed)
        if publication:
            folder = publication.prefix
            self._store.put(f"{folder}/{PARTS}", publication.parts.to_json())
            self._store.put(f"{folder}/{HEADER}", publication.header.to_json().encode())
        taken = self._take_additions()
        before = {part.name for part in all_parts(self._files.parts, taken)}
        before |= {part.name for part in self._named_indexes()}
        self._upload_files()
        index = self._new_index()
        former_additions = self.current.additions
        removed_prefixes: list[str] = []

        def change(now: RunHead) -> RunHead:
            now = lease.renewed(self._head, now, self.number)
            there = {self._present_name(name): at for name, at in now.checkpoints.items()}
            checkpoints = {name: at for name, at in there.items() if name not in removed}
            removed_prefixes[:] = [now.checkpoints[k] for k in now.checkpoints if k in removed]
            if publication:
                checkpoints[publication.name] = publication.prefix
            entries = {k: v for k, v in self._files.parts.items() if k not in self._indexed}
            asked = (now.stop_request, now.data_workers_request)
            self._requests |= {request for request in asked if request is not None}
            return now.model_copy(
                update={
                    "files": FileTable(entries=entries, index=index),
                    "additions": _without(now.additions, former_additions, taken),
                    "checkpoints": checkpoints,
                    "stop_request": None,
                    "data_workers_request": None,
                }
            )

        try:
            self.current = self._head.change(change)
        finally:
            self._pass_on_requests()
        with self._lock:
            self._removed -= removed
            if publication:
                self._published.append(publication.name)
                if self._publication is publication:
                    self._publication = None
        self._warn_at_limit(len(self.current.checkpoints) / MAX_CHECKPOINTS, "checkpoints")
        self._delete_garbage(before, removed_prefixes)
        if self._sweep_requested:
            self._sweep()

    def _present_name(self, name: str) -> str:
        """Return the name of a checkpoint's local folder, which changes if it is damaged."""
        aside = f"{DAMAGED}{name}"
        folder = self._folder.checkpoints
        return aside if not (folder / name).exists() and (folder / aside).exists() else name

    def _take_additions(self) -> Files:
        """Fetch the files that other processes have added to the run, and return their parts.

        They are uploaded as files of the owner next. Each is fetched once, although the head may
        name it for some more rounds if the object store does not answer. One that is damaged, or
        cannot be a file of this folder, is left out.
        """
        additions = self._additions()
        for name, parts in additions.items():
            if parts not in (self._files.parts.get(name), self._taken.get(name)):
                self._take(name, parts)
            self._taken[name] = parts
        return additions

    def _additions(self) -> Files:
        """Return the parts of files that other processes have added; none from a damaged index."""
        try:
            return self._puller.tables.files(self.current.additions)
        except (RunMismatchError, ObjectMissingError) as error:
            self._refuse("additions", f"files that were added are left out: {error}")
            return dict(self.current.additions.entries)

    def _take(self, name: str, parts: list[FilePart]) -> None:
        try:
            self._puller.fetch(name, parts)
        except ObjectStoreError as error:
            if not isinstance(error, ObjectMissingError):
                raise
            self._refuse(name, f"the file {name!r}, which was added, is left out: {error}")
        except (RunMismatchError, OSError) as error:  # an OSError if it is a directory here
            self._refuse(name, f"the file {name!r}, which was added, is left out: {error}")

    def _upload_files(self) -> None:
        with suppress(OSError):  # packed next time
            archive_validations(self._folder.translations)
        for name in self._files.removed():
            del self._files.parts[name]
            self._indexed.discard(name)
        changed = self._files.changed()
        share = 0.0 if self._files.parts.keys() >= set(changed) else usage(self._files.parts)
        for name in changed:
            is_new = name not in self._files.parts
            if is_new and not self._may_add(name, share):
                continue
            try:
                self._files.upload(name, partial(self._put, name))
            except FileNotFoundError:  # removed meanwhile
                continue
            except ObjectStoreError:
                raise
            except OSError as error:  # such as a FIFO, or a file of another user
                if name == self._folder.metrics.name:
                    raise  # no checkpoint is published without the record of its steps
                self._refuse(name, f"the file {name!r} is not in {self.url}: {error}")
                continue
            self._indexed.discard(name)
            self._last_changes[name] = time.monotonic()
            share += usage({name: self._files.parts[name]}) if is_new else 0.0

    def _may_add(self, name: str, share: float) -> bool:
        """Return whether a new file can be stored; announce once if not.

        Args:
            share: the share of the limits that the files in the object store take.
        """
        if problem := name_problem(name):
            self._refuse(name, f"the file {name!r} is not in {self.url}, since its name {problem}")
            return False
        self._warn_at_limit(share, "files")
        if share > 1.0 - 0.5 / MAX_FILES:
            error = too_many_files(len(self._files.parts))
            self._refuse("limit", f"{self.url} receives no further files: {error}")
            return False
        return True

    def _warn_at_limit(self, share: float, what: str) -> None:
        if share >= WARNING_SHARE:
            self._refuse(
                f"most {what}",
                f"{self.url} has {share:.0%} of the {what} that a run in an object store can have. "
                f"Remove some in {self._folder.path}",
            )

    def _refuse(self, about: str, message: str) -> None:
        """Announce once that something is not stored, or will not be."""
        if about not in self._refused:
            self._refused.add(about)
            self._announce(message)

    def _put(self, file: str, data: bytes) -> str:
        return put_part(self._store, f"{self.current.owner.folder}/files/{file}", data)

    def _named_indexes(self) -> list[IndexPart]:
        return [*self.current.files.index, *self.current.additions.index]

    def _new_index(self) -> list[IndexPart]:
        """Return the parts of the index, after moving files to it if the head names too many."""
        current, tables = self.current.files, self._puller.tables
        direct = [name for name in self._files.parts if name not in self._indexed]
        # The index may list outdated parts of files that the head names, but no file that is gone.
        is_stale = bool(tables.indexed(current).keys() - self._files.parts.keys())
        if len(direct) <= MAX_ENTRIES and not is_stale:
            return current.index
        if len(direct) > MAX_ENTRIES:
            direct.sort(key=lambda name: self._last_changes.get(name, 0.0))
            self._indexed |= set(direct[:-ENTRIES_LEFT])
        files = {name: self._files.parts[name] for name in sorted(self._indexed)}
        index = write_index(files, partial(self._put, "index")) if files else []
        tables.remember(index, files)
        return index

    def _pass_on_requests(self) -> None:
        """Write requests that other processes left in the head to the run's control files."""
        for request in self._requests:
            if isinstance(request, int):
                self._folder.request_data_workers(request)
            else:
                self._folder.ask_to_stop()
        self._requests.clear()

    def _delete_garbage(self, before: set[str], prefixes: list[str]) -> None:
        """Delete the objects that only heads before the last two named.

        Readers of the last head may still fetch the others.
        """
        deleted, self._garbage = self._garbage, []
        named = {part.name for part in self._named_parts()}
        self._garbage = sorted(before - named)
        self._store.delete(deleted)
        delete_below(self._store, prefixes)

    def _finish(self) -> None:
        """Upload the rest, delete the garbage, and release the run."""
        for left in final_save_attempts():
            try:
                self._upload_and_swap()
                self._garbage, self._attempt = [], None
                self._sweep()
                self._release()
            except LeaseLostError as error:
                self._announce(str(error))
            except TrainerError as error:
                self._announce(str(error))
                with suppress(TrainerError, OSError):
                    self._release()
            except OSError as error:
                if left:
                    continue
                self._announce(
                    f"the last files of the run are not in {self.url}: {error}. They are in "
                    f"{self._folder.path}; start the same command again on this machine, or copy "
                    f"them with `transloom runs push`"
                )
            return

    def _release(self) -> None:
        def release(now: RunHead) -> RunHead:
            mine = lease.renewed(self._head, now, self.number)
            owner = mine.owner.model_copy(update={"released": True})
            return mine.model_copy(update={"owner": owner})

        with suppress(LeaseLostError):
            self.current = self._head.change(release)


def _without(additions: FileTable, former: FileTable, taken: Files) -> FileTable:
    """Return the additions that the owner has not seen yet.

    Args:
        additions: the present additions.
        former: the additions from which the owner has taken files.
        taken: the parts of these files.
    """
    left = {name: parts for name, parts in additions.entries.items() if taken.get(name) != parts}
    return FileTable(entries=left, index=[] if additions.index == former.index else additions.index)
