"""A dataset folder appears whole, in one instant, or not at all.

    .NAME.prepare-HOST-PID/new   is written and synced, then renamed to NAME
    .NAME.prepare-HOST-PID/old   holds what was replaced, until it is removed with the work folder

A killed process leaves its work folder, which no reader takes for a dataset, and which the next
preparation on the same host clears. No lock is taken: locks on folders fail on network disks.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.durable import sync_to_disk
from data_pipeline.errors import DatasetError
from data_pipeline.store import MANIFEST_NAME


def clear_leftovers(dataset: Path) -> None:
    """Removes what killed preparations of this dataset left, and puts back what they moved away."""
    if not dataset.parent.is_dir():
        return
    prefix = _work_prefix(dataset)
    for leftover in list(dataset.parent.iterdir()):
        name = leftover.name
        pid = name.removeprefix(prefix) if name.startswith(prefix) else ""
        if pid.isdecimal() and (int(pid) == os.getpid() or not _is_alive(int(pid))):
            _put_back(leftover / "old", dataset)
            shutil.rmtree(leftover)


@contextmanager
def work_folder(dataset: Path) -> Iterator[Path]:
    """A hidden folder beside the dataset, on the same file system; removed at the end."""
    folder = dataset.parent / f"{_work_prefix(dataset)}{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        _put_back(folder / "old", dataset)
        shutil.rmtree(folder)


def _work_prefix(dataset: Path) -> str:
    return f".{dataset.name}.prepare-{socket.gethostname()}-"


def _put_back(old: Path, dataset: Path) -> None:
    """Undo a replacement that did not come to its end."""
    if old.exists() and not dataset.exists():
        old.rename(dataset)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def check_replaceable(dataset: Path) -> None:
    """Raises DatasetError if something stands there that is no dataset and must not be lost."""
    if dataset.is_dir() and ((dataset / MANIFEST_NAME).exists() or not any(dataset.iterdir())):
        return
    if os.path.lexists(dataset):
        raise DatasetError(
            f"{dataset} exists and is not a dataset: it has no {MANIFEST_NAME}. Nothing was "
            "changed there. Name another folder with data.dataset, or move this one away."
        )


def publish(new: Path, dataset: Path, old: Path) -> None:
    """Syncs the folder `new` to disk and makes it `dataset`; what was there becomes `old`."""
    for folder, _, _ in os.walk(new):
        sync_to_disk(Path(folder))
    check_replaceable(dataset)
    if dataset.exists():
        dataset.rename(old)
    new.rename(dataset)
    sync_to_disk(dataset.parent)
