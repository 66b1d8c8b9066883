"""Atomic commit of the ranks' files as a checkpoint, by the run's owner only.

Every rank writes its file into a partial folder within the owner's work folder (see
`run_store.lease`) and reports the file's hash. When all ranks have reported, `commit`
writes checkpoint.json into the partial folder, syncs it, and renames the folder to
`checkpoints/step-…`. Before a checkpoint is removed, it is renamed into the work folder.

So every commit and every removal renames a folder from or to the work folder. A new owner removes
the work folder of a former owner. Therefore a former owner that was paused can neither commit nor
remove a checkpoint, even if it continues much later.
"""

from collections.abc import Sequence
from pathlib import Path

from data_pipeline.storage.regular_files import sync_to_disk, write_durably
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import folder_name
from run_store.checkpoints.format import HEADER, CheckpointHeader
from run_store.checkpoints.state_file import FileRecord
from run_store.lease import discard

DAMAGED = "damaged-"


def partial_folder(work: Path, step: int, attempt: str) -> Path:
    """Return the partial folder for a step; each attempt has a separate one."""
    return work / f"{folder_name(step)}-{attempt}"


def commit(
    partial: Path, final: Path, header: CheckpointHeader, files: Sequence[FileRecord]
) -> Checkpoint:
    """Turn a partial folder into the complete checkpoint `final`, atomically.

    Raises:
        OSError: `final` cannot be written or exists already, or another process owns the run.
    """
    complete = header.model_copy(update={"files": sorted(files, key=lambda f: f.name)})
    write_durably(partial / HEADER, complete.to_json().encode())
    sync_to_disk(partial)
    partial.rename(final)
    sync_to_disk(final.parent)
    return Checkpoint(final)


def remove(folder: Path, work: Path) -> None:
    """Remove a complete checkpoint.

    Raises:
        OSError: another process owns the run, or the folder is write-protected.
    """
    # Rename first, so that no half-removed folder looks complete.
    condemned = work / f"condemned-{folder.name}"
    folder.rename(condemned)
    sync_to_disk(folder.parent)
    discard(condemned)


def set_aside(damaged: Path, work: Path) -> Path:
    """Rename a damaged checkpoint so that it is kept but ignored; return its new path.

    Raises:
        OSError: another process owns the run, or the folder is write-protected.
    """
    aside = damaged.with_name(f"{DAMAGED}{damaged.name}")
    in_transit = work / aside.name
    damaged.rename(in_transit)
    if aside.exists():
        aside.rename(work / f"condemned-{aside.name}")
    in_transit.rename(aside)
    sync_to_disk(aside.parent)
    discard(work / f"condemned-{aside.name}")
    return aside
