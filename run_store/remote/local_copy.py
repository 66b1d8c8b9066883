"""Folders of runs that are named by a folder or by a URL.

Modules of the object store are imported only for URLs, and numpy is never imported, because the
shell completion of commands waits for this module.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from run_store.run_url import is_run_url

if TYPE_CHECKING:
    from run_store.folder import RunFolder


def local_copy(run: str | os.PathLike[str]) -> Path:
    """Return the folder of a run, which is an up-to-date local copy if `run` is a URL.

    Raises:
        RunMismatchError: there is no run at the URL, or it is damaged.
        ObjectStoreError: the object store does not answer.
    """
    if not is_run_url(run):
        return Path(run)
    from run_store.remote.pull import run_view

    return run_view(os.fspath(run))


def stored_run(run: "RunFolder") -> "RunFolder":
    """Return a folder with the run as it is stored now, for reading only.

    The result is the run's folder or, for a run in an object store, a local copy. If there is no
    such run yet, the copy is empty.

    Raises:
        RunMismatchError: the run is damaged.
        ObjectStoreError: the object store does not answer.
    """
    if run.url is None:
        return run
    from run_store.folder import RunFolder
    from run_store.remote.pull import run_view

    return RunFolder(run_view(run.url, may_be_missing=True), run.url)
