"""Checkpoints made without a run."""

from collections.abc import Sequence
from pathlib import Path

from trainer.checkpoints.commit import commit, partial_folder
from trainer.checkpoints.format import Checkpoint, CheckpointHeader
from trainer.checkpoints.state_file import write_state
from trainer.fragments import Fragment


def work_folder(checkpoints: Path) -> Path:
    """A work folder as an owner of the run would have."""
    work = checkpoints / ".work-00000001-test"
    work.mkdir(parents=True, exist_ok=True)
    return work


def save_checkpoint(
    checkpoints: Path, header: CheckpointHeader, shares: Sequence[Sequence[Fragment]]
) -> Checkpoint:
    """A complete checkpoint of what each rank owns."""
    partial = partial_folder(work_folder(checkpoints), header.step, "a")
    files = [write_state(partial, rank, len(shares), share) for rank, share in enumerate(shares)]
    return commit(partial, checkpoints, header, files)
