"""The driver's mirror of its run: it uploads files, publishes checkpoints, and renews the lease.

::

    run folder ──changed files──▶ objects ─┐
    ranks ──state files──▶ objects ────────┼──compare-and-swap──▶ HEAD.json ──▶ delete the rest
    committer ──complete checkpoint────────┘

One thread does all this, at least every `RENEW_SECONDS`. Only the end of the run waits for the
thread. If the object store does not answer, the next try includes everything that is missing.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Self

from data_pipeline.storage.object_errors import ObjectMissingError, ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from foundation.periodic_thread import MAX_FAILURES_IN_A_ROW, PeriodicThread
from run_store.checkpoints.commit import DAMAGED
from run_store.checkpoints.final_save import final_save_attempts
from run_store.checkpoints.folder_names import folder_name
from run_store.checkpoints.format import HEADER, CheckpointHeader
from run_store.checkpoints.state_objects import PARTS, PartList
from run_store.errors import LeaseLostError, RunError, RunMismatchError
from run_store.folder import RunFolder
from run_store.lease import RENEW_SECONDS, OwnerMetadata
from run_store.remote import lease
from run_store.remote.files import (
    MAX_FILES,
    WARNING_SHARE,
    FileObjects,
    Files,
    KnownFiles,
    is_kept,
    local_files,
    objects_of,
    too_many_files,
    usage,
)
from run_store.remote.head import (
    MAX_CHECKPOINTS,
    HeadObject,
    delete_unnamed,
    owner_folder,
    owners_change,
)
from run_store.remote.pull import RunPuller
from run_store.remote.store_check import probe_store
from run_store.remote.validation_archive import archive_validations
from run_store.run_url import run_url
from run_store.start import StopOrder

GIVE_UP_POLL_SECONDS = 0.5


class Publication(NamedTuple):
    """Checkpoint that all ranks have uploaded, and that the head will name.

    Attributes:
        prefix: the name under which the checkpoint's objects are stored.
    """

    header: CheckpointHeader
    parts: PartList
    prefix: str


class RunMirror:
    """Mirror of a run folder in an object store, as a context manager of the run's owner.

    Entering the context acquires the run and updates the local folder. Leaving the context uploads
    the last changes and releases the run.

    Raises:
        RunInUseError: on entering, another process owns the run.
        RunMismatchError: on entering, the object store cannot hold runs.
        ObjectStoreError: on entering, the object store cannot be reached or written.
    """

    def __init__(
        self,
        url: str,
        folder: RunFolder,
        announce: Callable[[str], None],
        owner: OwnerMetadata | None = None,
    ) -> None:
        """Prepare a mirror, without a request to the object store.

        Args:
            url: the run's location in the object store.
            folder: the local folder, which this process owns.
            announce: receives messages about a wait for another owner, or about failures.
            owner: the owner of the local folder, as its lease names it.
        """
        self.url = run_url(url)
        self._folder = folder
        self._announce = announce
        self._owner = owner
        self._store = ObjectStore(self.url)
        self._head = HeadObject(self._store)
        self._files = KnownFiles(folder.path)
        self._removed: set[str] = set()  # removed files that the head still names
        self._left_out: Files = {}  # other processes' files that cannot be fetched
        self._told: set[str] = set()  # subjects of which a message was announced
        self._publication: Publication | None = None  # checkpoint to publish in the next round
        self._removals: set[str] = set()  # names of checkpoints to remove in the next round
        self._of_nodes: list[Files] = []  # files to fetch in the next round
        self.unavailable: set[str] = set()  # names of node files that could not be fetched
        self._published: list[str] = []
        self._garbage: list[str] = []  # objects that the head named before its last change
        self._requests: set[str | int] = set()  # other processes' requests, to pass on
        self._sweep_requested = False
        self._attempt: str | None = None
        self._lost: RunError | None = None
        self._problem: str | None = None
        self._flushed = threading.Condition()  # also guards the requests of other threads
        self._rounds = 0
        self._thread = PeriodicThread(
            "mirror", RENEW_SECONDS, self._round, at_once=True, give_up=self._give_up
        )

    def __enter__(self) -> Self:
        probe_store(self._store)
        head = lease.acquire(self._head, self._announce, self._owner)
        try:
            self.number = head.owner.number
            RunPuller(self._store, self._files, keeps_jobs=True).pull(head)
            self.current = head
            self._sweep()
        except BaseException:
            self._release()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop()
        if self._lost is None:
            self._finish()
        elif not isinstance(self._lost, LeaseLostError):
            with suppress(RunError, OSError):
                self._release()

    @property
    def states_url(self) -> str:
        """Location under which the ranks upload the state files of this owner's checkpoints."""
        return f"{self.url}/{owner_folder(self.number)}"

    def check(self) -> None:
        """Check that this process still owns the run, as far as it knows.

        Raises:
            LeaseLostError: another process owns the run now.
            RunError: the run's head is damaged, or the mirror keeps failing.
        """
        if self._lost:
            raise self._lost

    def publish(self, folder: str, header: CheckpointHeader, parts: PartList) -> None:
        """Publish a complete checkpoint in the head as soon as possible, instead of an older one.

        Args:
            folder: the name under which the ranks have uploaded the state files.
            header: the checkpoint's header, which lists all files.
        """
        prefix = f"{owner_folder(self.number)}/{folder}"
        with self._flushed:
            self._publication = Publication(header, parts, prefix)
        self._thread.wake()

    def retract(self, step: int) -> None:
        """Withdraw a checkpoint that is not published yet."""
        with self._flushed:
            if self._publication and self._publication.header.step == step:
                self._publication = None

    def take_published(self) -> list[str]:
        """Return the names of checkpoints that were published since the last call."""
        with self._flushed:
            names, self._published = self._published, []
        return names

    def add(self, files: Files, problems: Mapping[str, object]) -> None:
        """Add files that a node has uploaded, before any checkpoint that is published later.

        Args:
            problems: for each file of the node that is left out, by name, the reason.
        """
        for name, problem in problems.items():
            self._leave_out(name, problem)
        if files:
            with self._flushed:
                self._of_nodes.append(files)
            self._thread.wake()

    def remove(self, names: Collection[str]) -> None:
        """Remove checkpoints, by their folder names, from the head and then from the store."""
        with self._flushed:
            self._removals |= set(names)
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
        """Schedule the deletion of unpublished uploads by ranks of former attempts.

        Args:
            attempt: the name of the attempt that begins, whose uploads are kept.
        """
        self._attempt = attempt
        self._sweep_requested = True
        self.unavailable.clear()

    def _sweep(self) -> None:
        """Delete objects of this owner and of former owners that the head does not name.

        Uploads of the current attempt's ranks are kept.
        """
        self._sweep_requested = False
        prefixes = [*self.current.checkpoints.values()]
        if publication := self._publication:
            prefixes.append(publication.prefix)
        delete_unnamed(self._store, self.current.files, prefixes, self.number, self._is_of_attempt)

    def _is_of_attempt(self, name: str) -> bool:
        """Return whether ranks or nodes of the current attempt may have uploaded an object."""
        is_of_file = not name.startswith("owners/")
        return self._attempt is not None and (is_of_file or f"-{self._attempt}/" in name)

    def _round(self) -> None:
        """Upload changes, change the head, and delete objects that only former heads named."""
        if self._lost:
            return
        try:
            self._upload_and_swap()
        except RunError as error:
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
            RunError(
                f"The mirror of {self.url} has failed {MAX_FAILURES_IN_A_ROW} times in a row: "
                f"{error!r}. Nothing is lost: checkpoints and record are in {self._folder.path}; "
                "start the same command again on this machine"
            )
        )

    def _lose(self, error: RunError) -> None:
        """Stop uploading; `check` raises the error from now on."""
        with self._flushed:
            self._lost = error
            self._flushed.notify_all()

    def _upload_and_swap(self) -> None:
        with self._flushed:
            publication, removals = self._publication, set(self._removals)
            of_nodes = [*self._of_nodes]
        before = objects_of(self.current.files, self._files.files, *of_nodes)
        for files in of_nodes:
            self._take(files)
        published = {}
        if publication and not self.unavailable:
            prefix = publication.prefix
            self._store.put(f"{prefix}/{PARTS}", publication.parts.to_json())
            self._store.put(f"{prefix}/{HEADER}", publication.header.to_json().encode())
            published[folder_name(publication.header.step)] = prefix
        self._upload_changes()
        change = partial(
            owners_change,
            before=self.current.files,
            files=dict(self._files.files),
            gone=self._removed - self._files.files.keys(),
            published=published,
            removed=removals,
            moved_aside=self._moved_aside(),
        )
        try:
            self.current = self._head.change(
                lambda now: change(lease.renewed(self._head, now, self.number))
            )
        finally:
            self._pass_on_requests()
        self._removed.clear()
        with self._flushed:
            self._removals -= removals
            self._published += published
            del self._of_nodes[: len(of_nodes)]
            if published and self._publication is publication:
                self._publication = None
        self._warn_at_limit(len(self.current.checkpoints) / MAX_CHECKPOINTS, "checkpoints")
        self._delete_garbage(before)
        with suppress(ObjectStoreError):  # remaining additions are fetched next time
            self._take_additions()
        if self._sweep_requested:
            self._sweep()

    def _moved_aside(self) -> dict[str, str]:
        """Return the names of the folders of damaged checkpoints, by their former names."""
        folders = self._folder.checkpoints.glob(f"{DAMAGED}*")
        names = {folder.name.removeprefix(DAMAGED): folder.name for folder in folders}
        return {k: v for k, v in names.items() if not (self._folder.checkpoints / k).exists()}

    def _pass_on_requests(self) -> None:
        """Write requests that other processes left in the head to the run's control files."""
        for head in self._head.changed:
            asked = (head.stop_request, head.data_workers_request)
            self._requests |= {request for request in asked if request is not None}
        for request in self._requests:
            if isinstance(request, int):
                self._folder.request_data_workers(request)
            else:
                order = None
                with suppress(ValueError):  # the request has no valid name
                    order = StopOrder(by=request.partition(" ")[2])
                self._folder.ask_to_stop(order)
        self._requests.clear()

    def _upload_changes(self) -> None:
        with suppress(OSError):  # they are packed next time
            archive_validations(self._folder.translations)
        known = self._files.files
        gone = {name for name in known if not (self._folder.path / name).exists()}
        for name in gone:
            del known[name]
        self._removed |= gone
        names = filter(self._may_have, local_files(self._folder.path))
        self._files.upload_changes(self._store, names, self.number, self._leave_out)

    def _take(self, files: Files) -> None:
        """Fetch files that a node has uploaded, so that they become files of the owner.

        If a file cannot be fetched, the node uploads it again, and no checkpoint is published
        before. For example, the node may have uploaded an object again just before the owner
        deleted its former version.
        """
        for name in filter(self._may_have, files):
            self.unavailable.discard(name)
            if problem := self._fetch(name, files[name]):
                self.unavailable.add(name)
                self._leave_out(name, problem)

    def _fetch(self, name: str, file: FileObjects) -> Exception | None:
        """Write a file of the folder from its objects; return the error if it cannot be written.

        Raises:
            ObjectStoreError: the object store does not answer.
        """
        try:
            self._files.fetch(self._store, name, file)
        except ObjectMissingError as error:
            return error
        except ObjectStoreError:
            raise
        except (RunMismatchError, OSError) as error:  # for example, the path is a directory here
            return error
        return None

    def _leave_out(self, name: str, problem: object) -> None:
        self.tell_once(name, f"the file {name!r} is not in {self.url}: {problem}")

    def _may_have(self, name: str) -> bool:
        """Return whether the run has a file, or has room for it; announce once if not."""
        if name in self._files.files:
            return True
        share = usage(self._files.files)
        self._warn_at_limit(share, "files")
        has_room = share <= 1.0 - 0.5 / MAX_FILES
        if not has_room:
            error = too_many_files(len(self._files.files))
            self.tell_once("limit", f"{self.url} receives no further files: {error}")
        return has_room

    def _warn_at_limit(self, share: float, what: str) -> None:
        """Announce, at most once, that a limit is nearly reached."""
        if share >= WARNING_SHARE:
            self.tell_once(
                f"most {what}",
                f"{self.url} has {share:.0%} of the {what} that a run in an object store can have. "
                f"Remove some in {self._folder.path}",
            )

    def tell_once(self, about: str, message: str) -> None:
        """Announce the first message about a subject."""
        if about not in self._told:
            self._told.add(about)
            self._announce(message)

    def _take_additions(self) -> None:
        """Fetch files that other processes have added, so that they become files of the owner.

        A file that is damaged or cannot be written to the folder is dropped from the next head.
        """
        for name, file in self.current.files.items():
            if file in (self._files.files.get(name), self._left_out.get(name)) or is_kept(name):
                continue
            if problem := self._fetch(name, file):
                self._left_out[name] = file
                self._removed.add(name)
                self.tell_once(name, f"the file {name!r}, which was added, is left out: {problem}")

    def _delete_garbage(self, before: set[str]) -> None:
        """Delete the objects that neither of the last two heads names, and removed checkpoints.

        Readers of the previous head may still fetch its objects.
        """
        named = objects_of(self.current.files)
        deleted, self._garbage = set(self._garbage) - named, sorted(before - named)
        self._store.delete(deleted)
        self._head.delete_replaced(with_files=False)

    def _finish(self) -> None:
        """Upload the last changes, delete the garbage, and release the run."""
        for left in final_save_attempts():
            try:
                self._upload_and_swap()
                self._garbage, self._attempt = [], None
                self._sweep()
                self._release()
            except RunError as error:
                self._announce(str(error))
                with suppress(RunError, OSError):
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
        with suppress(LeaseLostError):
            self.current = self._head.change(
                lambda now: lease.released(self._head, now, self.number)
            )
