"""Atomic publication of a dataset folder, which appears complete or not at all.

    .NAME.prepare-HOST-PID/new   is written and synced, then renamed to NAME
    .NAME.prepare-HOST-PID/old   is the replaced dataset, until the work folder is removed

A killed process leaves its work folder behind. No reader mistakes this folder for a dataset, and
the next preparation on the same host removes it. No lock is used, because locks on folders fail on
network disks.
"""

import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from data_pipeline.dataset.manifest import LIMITS
from data_pipeline.dataset.manifest_header import FORMAT_FAMILY
from data_pipeline.errors import DatasetError
from data_pipeline.storage.regular_files import read_regular, sync_to_disk
from data_pipeline.storage.store import MANIFEST_NAME, MAX_MANIFEST_BYTES
from foundation.file_model import parse_json


def clear_leftovers(dataset: Path) -> None:
    """Remove the work folders of killed preparations.

    A replaced dataset in such a folder is moved back if its path is free.
    """
    if not dataset.parent.is_dir():
        return
    prefix = _work_prefix(dataset)
    for leftover in list(dataset.parent.iterdir()):
        name = leftover.name
        pid = name.removeprefix(prefix) if name.startswith(prefix) else ""
        if pid.isdecimal() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            _restore(leftover / "old", dataset)
            shutil.rmtree(leftover)


@contextmanager
def work_folder(dataset: Path) -> Iterator[Path]:
    """Create a hidden folder next to the dataset, on the same file system; remove it on exit."""
    folder = dataset.parent / f"{_work_prefix(dataset)}{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        _restore(folder / "old", dataset)
        shutil.rmtree(folder)


def _work_prefix(dataset: Path) -> str:
    return f".{dataset.name}.prepare-{socket.gethostname()}-"


def _restore(old: Path, dataset: Path) -> None:
    """Undo a replacement that was interrupted."""
    if old.exists() and not dataset.exists():
        old.rename(dataset)


def check_replaceable(dataset: Path) -> str | None:
    """Return the sha256 of the manifest of the dataset at this path, or None if there is none.

    Raises:
        DatasetError: the path has content that is not a dataset and must not be lost, or it is
            the root of a file system, which cannot be moved.
    """
    if not os.path.lexists(dataset) or (dataset.is_dir() and not any(dataset.iterdir())):
        problem = "is the root of a file system" if os.path.ismount(dataset) else ""
    else:
        problem = "" if _is_dataset(dataset) else f"has no {MANIFEST_NAME} of a dataset"
    if problem:
        raise DatasetError(
            f"{dataset} exists and {problem}. Nothing was changed there. Name another folder with "
            "data.dataset, or move this one away."
        )
    manifest = dataset / MANIFEST_NAME
    if not manifest.exists():
        return None
    with manifest.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_dataset(folder: Path) -> bool:
    """Return whether a folder has a dataset's manifest, of any version and possibly damaged."""
    try:
        content = parse_json(read_regular(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES), LIMITS)
    except OSError:
        return False
    except (ValueError, RecursionError):
        return (folder / "shards").is_dir()
    return isinstance(content, dict) and str(content.get("format")).startswith(FORMAT_FAMILY)


def publish(new: Path, dataset: Path, old: Path, expected: str | None) -> None:
    """Sync the folder `new` to disk and move it to `dataset`; move an existing dataset to `old`.

    Args:
        expected: the result of `check_replaceable` before the preparation.

    Raises:
        DatasetError: the dataset at this path has changed in the meantime.
    """
    for folder, _, _ in os.walk(new):
        sync_to_disk(Path(folder))
    if check_replaceable(dataset) != expected:
        raise DatasetError(
            f"Another process has changed the dataset {dataset} during this preparation. Nothing "
            "was changed there. Run the command again: it keeps that dataset if it matches the "
            "recipe, and otherwise reports the differences."
        )
    if dataset.exists():
        dataset.rename(old)
    new.rename(dataset)
    sync_to_disk(dataset.parent)
