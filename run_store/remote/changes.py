"""Changes of a run in an object store by processes that do not train it.

Such a process stores its objects under the number of the next owner. The current owner does not
delete them, because it deletes unnamed objects only under its own number and earlier numbers. The
next owner deletes them, unless the head names them by then. Therefore such a process changes the
head only if the run still has the same owner.
"""

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from data_pipeline.storage.object_errors import ObjectMissingError, ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.format import HEADER
from run_store.checkpoints.state_file import HEADER_LIMITS
from run_store.checkpoints.state_objects import PARTS, PartList, upload_state_file
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder
from run_store.remote import lease
from run_store.remote.files import (
    FILES_AT_ONCE,
    Files,
    KnownFiles,
    is_kept,
    local_files,
    name_problem,
    storable_files,
)
from run_store.remote.head import HeadObject, RunHead, RunOwner, owner_folder
from run_store.run_url import run_url


class Addition:
    """Files and checkpoints that one change of the head adds to a run.

    A driver that trains the run at the same time fetches the added files.
    """

    def __init__(self, head: HeadObject, seen: RunHead) -> None:
        """Prepare an addition, without a request to the object store.

        Args:
            seen: the head as it was read; the run must still have the same owner when the head
                changes.
        """
        self._head = head
        self._store = head.store
        self._seen = seen
        self.number = seen.owner.number + 1
        self.files: Files = {}
        self.checkpoints: dict[str, str] = {}

    def put_files(self, folder: Path, names: Iterable[str]) -> None:
        """Upload files of a folder, under their paths relative to the folder.

        Raises:
            OSError: a file cannot be read, or an upload has failed.
        """
        known = KnownFiles(folder, dict(self._seen.files))

        def put(name: str) -> None:
            known.upload(self._store, name, self.number)
            self.files[name] = known.files[name]

        with ThreadPoolExecutor(FILES_AT_ONCE, "put") as pool:
            for _ in pool.map(put, names):
                pass

    def put_checkpoint(
        self, checkpoint: Checkpoint, report: Callable[[int], object] = lambda size: None
    ) -> None:
        """Upload a checkpoint, verified by its hashes, unless the run has it already.

        An interrupted upload is continued. A different checkpoint of the same name is replaced.

        Args:
            report: receives the number of bytes of each uploaded or already stored part of the
                state.

        Raises:
            CheckpointError: the checkpoint is damaged.
            OSError: a file cannot be read, or an upload has failed.
        """
        name, header = checkpoint.path.name, (checkpoint.path / HEADER).read_bytes()
        with suppress(KeyError, ObjectMissingError):
            before = self._seen.checkpoints[name]
            if self._store.get(f"{before}/{HEADER}", HEADER_LIMITS.bytes).data == header:
                report(checkpoint.bytes)
                self.checkpoints[name] = before
                return
        # Parts that an interrupted upload has left are from files that were verified by this
        # header.
        digest = hashlib.sha256(header).hexdigest()[:16]
        prefix = f"{owner_folder(self.number)}/{name}-{digest}"
        objects = ObjectStore(f"{self._store.url}/{prefix}")
        there = {object.name: object.bytes for object in objects.list()}
        files = []
        for record in checkpoint.header.files:
            path = checkpoint.path / record.name
            with tempfile.TemporaryDirectory() as folder:
                if checkpoint.objects:  # the checkpoint is in an object store
                    path = Path(folder) / record.name
                    checkpoint.objects.download(record, path)
                else:
                    checkpoint.verify_file(record)
                files.append(upload_state_file(objects, path, record, there, report))
        objects.put(PARTS, PartList(files=files).to_json())
        objects.put(HEADER, header)
        self.checkpoints[name] = prefix

    def commit(self, owner: RunOwner | None = None) -> RunHead:
        """Name the uploads in the head, delete the objects that they replace; return the head.

        Args:
            owner: the new owner, if the last owner has left; None to keep the current owner.

        Raises:
            RunMismatchError: another process has become the owner meanwhile, and may have deleted
                the new objects.
            ObjectStoreError: the object store does not answer, or cannot be written.
        """

        def change(now: RunHead) -> RunHead:
            seen = self._seen.owner
            if not (now.owner in (seen, owner) if owner else now.owner.number == seen.number):
                raise RunMismatchError(
                    f"{self._store.url} was changed meanwhile by {lease.owner_text(now.owner)}, and"
                    " nothing was written. Start the same command again"
                )
            update = {
                "files": now.files | self.files,
                "checkpoints": now.checkpoints | self.checkpoints,
                "owner": owner or now.owner,
            }
            return now.model_copy(update=update)

        head = self._head.change(change)
        with suppress(ObjectStoreError):  # the next owner deletes what is left
            # A driver that owns the run deletes objects of files when no reader needs them.
            self._head.delete_replaced(with_files=head.owner.released)
        return head


def add_checkpoint(url: str, checkpoint: Checkpoint) -> None:
    """Upload a checkpoint from a local folder into a run; replace a checkpoint of the same name.

    Raises:
        CheckpointError: the checkpoint is damaged.
        RunMismatchError: there is no such run, or another process has become its owner meanwhile.
        ObjectStoreError: the object store does not answer, or cannot be written.
    """
    head = HeadObject(ObjectStore(run_url(url)))
    addition = Addition(head, head.read_existing())
    addition.put_checkpoint(checkpoint)
    addition.commit()


def add_files(url: str, folder: Path) -> None:
    """Add the files in a local folder to a run, under their paths relative to the folder.

    Raises:
        RunMismatchError: there is no such run, another process has become its owner meanwhile, or
            a file cannot be stored.
        ObjectStoreError: the object store does not answer, or cannot be written.
        OSError: a file cannot be read.
    """
    head = HeadObject(ObjectStore(run_url(url)))
    _add_files(head, head.read_existing(), folder, storable_files(folder))


def add_job_files(run: RunFolder) -> None:
    """Add the files of jobs in a run folder, unless a driver owns the run and uploads them.

    Raises:
        RunMismatchError: the run is damaged, or a driver has become its owner meanwhile.
        ObjectStoreError: the object store does not answer.
        OSError: a file cannot be read.
    """
    assert run.url is not None
    head = HeadObject(ObjectStore(run.url))
    seen = head.read() or RunHead()
    if seen.owner.released:
        names = [name for name in local_files(run.path) if is_kept(name) and not name_problem(name)]
        _add_files(head, seen, run.path, names)


def _add_files(head: HeadObject, seen: RunHead, folder: Path, names: Collection[str]) -> None:
    if names:
        addition = Addition(head, seen)
        addition.put_files(folder, names)
        addition.commit()


def remove_checkpoints(
    url: str, names: Collection[str], announce: Callable[[str], None] = lambda text: None
) -> None:
    """Remove checkpoints from a run that no driver owns; own the run during the removal.

    Args:
        names: the names of their folders.
        announce: receives a message about a wait for another owner's lease.

    Raises:
        RunInUseError: a driver owns the run.
        RunMismatchError: there is no such run.
        ObjectStoreError: the object store does not answer, or cannot be written.
    """
    head = HeadObject(ObjectStore(run_url(url)))
    head.read_existing()
    number = lease.acquire(head, announce).owner.number

    def change(now: RunHead) -> RunHead:
        kept = {name: at for name, at in now.checkpoints.items() if name not in names}
        return lease.released(head, now, number).model_copy(update={"checkpoints": kept})

    head.change(change)
    with suppress(ObjectStoreError):  # the next owner deletes what is left
        head.delete_replaced()
