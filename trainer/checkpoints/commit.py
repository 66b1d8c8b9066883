"""From the ranks' files to a checkpoint, atomically and only by the run's owner.

Every rank writes its file into a folder within the owner's work folder (see
`trainer.checkpoints.lease`) and reports its hash. When all have reported, `commit` writes
checkpoint.json there, syncs, and renames the folder to ``checkpoints/step-…``. What is to be
removed is renamed into the work folder first. So both are renames from or to a folder that a new
owner takes away: a former owner, however late it wakes up, can neither commit nor remove.
"""

import shutil
from pathlib import Path

from data_pipeline.dataset.durable import sync_to_disk, write_durably
from trainer.checkpoints.format import (
    HEADER,
    Checkpoint,
    CheckpointHeader,
    FileRecord,
    folder_name,
)


def partial_folder(work: Path, step: int, attempt: str) -> Path:
    """Where the ranks of one attempt write a step; other attempts write elsewhere."""
    return work / f"{folder_name(step)}-{attempt}"


def commit(
    partial: Path, final: Path, header: CheckpointHeader, files: list[FileRecord]
) -> Checkpoint:
    """Make a partial folder the complete checkpoint ``final``, atomically.

    Raises:
        OSError: it cannot be written, there is one already, or somebody else owns the run.
    """
    complete = header.model_copy(update={"files": sorted(files, key=lambda f: f.name)})
    write_durably(partial / HEADER, (complete.model_dump_json(indent=1) + "\n").encode())
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


def discard(folder: Path) -> None:
    """Remove a partial or condemned folder; what cannot be removed is left for the next owner."""
    shutil.rmtree(folder, ignore_errors=True)
