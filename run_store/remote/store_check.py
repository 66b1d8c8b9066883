"""Checks that an object store can hold runs, before anything is started."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from data_pipeline.storage.object_errors import (
    ObjectAccessError,
    ObjectConflictError,
    ObjectStoreError,
)
from data_pipeline.storage.object_store import ObjectStore
from run_store.errors import RunMismatchError

PROBES = ".probe"


def probe_store(store: ObjectStore) -> None:
    """Check that the credentials can write, and that conditional writes have one winner.

    Two threads create the same object at the same time, and one of them must fail. Then a write
    over an outdated version must fail, and one over the current version must succeed. The probe
    takes six requests and leaves nothing behind.

    Raises:
        RunMismatchError: the object store accepts conflicting writes, so two drivers could damage
            a run.
        ObjectStoreError: the bucket does not exist, or the credentials cannot write to it.
    """
    name = f"{PROBES}/{secrets.token_hex(8)}"
    try:
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda _: _create(store, name), range(2)))
        created = [tag for tag in results if isinstance(tag, str)]
        if len(created) > 1:
            raise _unsafe(store, "two processes created the same object")
        if not created:
            raise ObjectStoreError(f"neither of two writes has succeeded: {results[0]}")
        newer = store.put_over(name, b"2", created[0])
        with suppress(ObjectConflictError):
            store.put_over(name, b"3", created[0])
            raise _unsafe(store, "a write over an outdated version has succeeded")
        if store.get(name, 10).etag != newer:
            raise _unsafe(store, "an object has another ETag than the one that its write returned")
    finally:
        with suppress(ObjectStoreError):
            store.delete([name])


def _create(store: ObjectStore, name: str) -> str | ObjectStoreError:
    """Create an object; return its etag, or the error if the write lost the race or failed."""
    try:
        return store.put_new(name, b"1")
    except ObjectAccessError:
        raise
    except ObjectStoreError as error:
        return error


def _unsafe(store: ObjectStore, found: str) -> RunMismatchError:
    return RunMismatchError(
        f"The object store of {store.url} cannot hold runs: {found}, although the requests had "
        "conditions (If-None-Match, If-Match) that forbid this. Two drivers could damage a run. "
        "Use a server with conditional writes, such as Amazon S3, Google Cloud Storage or a "
        "current MinIO, or --run FOLDER on storage that all nodes share"
    )
