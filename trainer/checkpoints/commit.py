"""From the ranks' files to a checkpoint, atomically and only by the run's owner.

Every rank writes its file into a folder within the owner's work folder (see
`trainer.checkpoints.lease`) and reports its hash. When all have reported, `commit` writes
checkpoint.json there, syncs, and renames the folder to `checkpoints/step-…`. A checkpoint that is
removed is first renamed into the work folder. So both are renames from or to a folder that a new
owner takes away: a former owner, however late it wakes up, can neither commit nor remove.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.storage.durable import sync_to_disk, write_durably
from trainer.checkpoints.format import (
    HEADER,
    Checkpoint,
    CheckpointHeader,
    FileRecord,
    folder_name,
)


def partial_folder(work: Path, step: int, attempt: str) -> Path:
    """The folder where the ranks of one attempt write a step; other attempts write elsewhere."""
    return work / f"{folder_name(step)}-{attempt}"


def commit(
    partial: Path, final: Path, header: CheckpointHeader, files: Sequence[FileRecord]
) -> Checkpoint:
    """Make a partial folder the complete checkpoint `final`, atomically.

    Raises:
        OSError: it cannot be written, it exists already, or somebody else owns the run.
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
        OSError: somebody else owns the run, or the folder is write-protected.
    """
    # Renamed first, so that no half-removed folder looks complete.
    condemned = work / f"condemned-{folder.name}"
    folder.rename(condemned)
    sync_to_disk(folder.parent)
    discard(condemned)


def set_aside(damaged: Path, work: Path) -> Path:
    """Rename a damaged checkpoint, so that it neither counts nor is lost; return its new path.

    Raises:
        OSError: somebody else owns the run, or the folder is write-protected.
    """
    aside = damaged.with_name(f"damaged-{damaged.name}")
    on_the_way = work / aside.name
    damaged.rename(on_the_way)
    if aside.exists():
        aside.rename(work / f"condemned-{aside.name}")
    on_the_way.rename(aside)
    sync_to_disk(aside.parent)
    discard(work / f"condemned-{aside.name}")
    return aside


def discard(folder: Path) -> None:
    """Remove a partial or condemned folder; leave what cannot be removed to the next owner."""
    shutil.rmtree(folder, ignore_errors=True)
