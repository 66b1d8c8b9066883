"""Requests to the driver of a run in an object store, which it finds in the run's head.

The driver reads the head every few seconds, when it changes it (see `trainer.runs.remote.mirror`).
"""

import secrets

from data_pipeline.storage.object_store import ObjectStore
from trainer.errors import RunMismatchError
from trainer.runs.remote.head import HeadObject, RunHead
from trainer.runs.run_url import run_url


def request_stop(url: str) -> None:
    """Ask the driver to save a checkpoint and stop the run.

    Raises:
        RunMismatchError: there is no such run, or no driver owns it.
        ObjectStoreError: the object store does not answer, or cannot be written.
    """
    _request(url, {"stop_request": secrets.token_hex(8)})


def request_data_workers(url: str, count: int) -> None:
    """Ask the driver for a number of data workers.

    Raises:
        RunMismatchError: there is no such run, or no driver owns it.
        ObjectStoreError: the object store does not answer, or cannot be written.
    """
    _request(url, {"data_workers_request": count})


def _request(url: str, update: dict[str, str | int]) -> None:
    store = ObjectStore(run_url(url))

    def change(now: RunHead) -> RunHead:
        if now.owner.released or now.owner.is_known_dead:
            raise RunMismatchError(
                f"{store.url} is not being trained, so nothing can receive the request. "
                f"`transloom status {store.url}` shows its state"
            )
        return now.model_copy(update=update)

    HeadObject(store).change(change)
