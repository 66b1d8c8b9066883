"""Changes of a run in an object store by processes that do not train it.

Such a process stores its objects under the number of the next owner. The present owner deletes
unnamed objects of no later number, so it leaves them alone. The next owner deletes them, unless the
head names them by then. Therefore the head is changed only if the run still has the same owner.
"""

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from data_pipeline.storage.object_errors import ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from trainer.checkpoints.checkpoint import Checkpoint
from trainer.checkpoints.format import HEADER
from trainer.checkpoints.state_objects import PARTS, PartList, upload_state_file
from trainer.errors import RunMismatchError
from trainer.runs.folder import RunFolder
from trainer.runs.remote import lease
from trainer.runs.remote.files import (
    is_kept,
    local_files,
    name_problem,
    objects_of,
    put_file,
    storable_files,
)
from trainer.runs.remote.head import HeadObject, RunHead, owner_folder
from trainer.runs.run_url import run_url


def add_checkpoint(url: str, checkpoint: Checkpoint) -> None:
    """Upload a checkpoint from a local folder into a run, replacing one of the same name.

    A driver may train the run at the same time.

    Raises:
        RunMismatchError: there is no such run, or another process has become its owner meanwhile.
        ObjectStoreError: the object store does not answer, or cannot be written.
    """
    store = ObjectStore(run_url(url))
    head = HeadObject(store)
    seen = head.read_existing()
    name = checkpoint.path.name
    prefix = f"{next_folder(seen)}/{name}-{secrets.token_hex(8)}"
    replaced: list[str] = []
    with _removed_on_failure(store, prefix):
        objects = ObjectStore(f"{store.url}/{prefix}")
        files = [
            upload_state_file(objects, checkpoint.path / record.name, record)
            for record in checkpoint.header.files
        ]
        objects.put(PARTS, PartList(files=files).to_json())
        objects.put(HEADER, (checkpoint.path / HEADER).read_bytes())

        def change(now: RunHead) -> RunHead:
            require_same_owner(store, seen, now)
            replaced[:] = [now.checkpoints[name]] if name in now.checkpoints else []
            return now.model_copy(update={"checkpoints": {**now.checkpoints, name: prefix}})

        head.change(change)
    with suppress(ObjectStoreError):
        delete_below(store, [at for at in replaced if at != prefix])


def remove_checkpoints(
    url: str, names: Collection[str], announce: Callable[[str], None] = lambda text: None
) -> None:
    """Remove checkpoints from a run that no driver owns, as its owner for a moment.

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
    removed: list[str] = []

    def change(now: RunHead) -> RunHead:
        mine = lease.renewed(head, now, number)
        removed[:] = [at for name, at in now.checkpoints.items() if name in names]
        kept = {name: at for name, at in now.checkpoints.items() if name not in names}
        owner = mine.owner.model_copy(update={"released": True})
        return mine.model_copy(update={"checkpoints": kept, "owner": owner})

    head.change(change)
    with suppress(ObjectStoreError):  # the next owner deletes what is left
        delete_below(head.store, removed)


def add_files(url: str, folder: Path) -> None:
    """Add the files in a local folder to a run, under their paths in that folder.

    A driver may train the run at the same time; it takes the files over.

    Raises:
        RunMismatchError: there is no such run, another process has become its owner meanwhile, or
            a file cannot be stored.
        ObjectStoreError: the object store does not answer, or cannot be written.
        OSError: a file cannot be read.
    """
    head = HeadObject(ObjectStore(run_url(url)))
    _add(head, head.read_existing(), folder, storable_files(folder))


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
        _add(head, seen, run.path, names)


def _add(head: HeadObject, seen: RunHead, folder: Path, names: Sequence[str]) -> None:
    if not names:
        return
    store, number = head.store, seen.owner.number + 1
    added = {name: put_file(store, name, folder / name, number) for name in names}
    replaced: set[str] = set()

    def change(now: RunHead) -> RunHead:
        nonlocal replaced
        require_same_owner(store, seen, now)
        replaced = objects_of(now.files) - objects_of(now.files | added)
        return now.model_copy(update={"files": now.files | added})

    released = head.change(change).owner.released
    if released:  # otherwise the owner deletes them
        with suppress(ObjectStoreError):
            store.delete(replaced)


def next_folder(head: RunHead) -> str:
    """Return the name under which processes that do not own the run store their objects."""
    return owner_folder(head.owner.number + 1)


def require_same_owner(store: ObjectStore, seen: RunHead, now: RunHead) -> None:
    """Check that no other process became the owner of a run since its head was read.

    Raises:
        RunMismatchError: another process did, and may have deleted the new objects.
    """
    if now.owner.number != seen.owner.number:
        raise RunMismatchError(
            f"Nothing was written to {store.url}, because another command began to train or change "
            f"the run meanwhile: {lease.owner_text(now.owner)}. Start the same command again"
        )


def delete_below(store: ObjectStore, prefixes: Collection[str]) -> None:
    """Delete all objects below some prefixes."""
    for prefix in prefixes:
        store.delete([object.name for object in store.list(f"{prefix}/")])


@contextmanager
def _removed_on_failure(store: ObjectStore, prefix: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(ObjectStoreError):
            delete_below(store, [prefix])
        raise
