"""Checkpoints written without a run; torch is imported only for tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.commit import commit, partial_folder
from run_store.checkpoints.folder_names import folder_name, list_checkpoints
from run_store.checkpoints.format import HEADER, CheckpointHeader, read_header
from run_store.checkpoints.state_file import FileRecord
from run_store.config import CheckpointsConfig

KEEP_ONE = CheckpointsConfig(keep_last=1, keep_best=0)

if TYPE_CHECKING:
    from run_store.checkpoints.committer import CheckpointCommitter
    from run_store.checkpoints.fragment import Fragment
    from trainer.process.placement import Placement


class Listener:
    """Supervision that records its calls, and passes them on to a committer."""

    def __init__(self, committer: CheckpointCommitter | None = None) -> None:
        self.written: list[tuple[FileRecord, CheckpointHeader]] = []
        self.failed: list[tuple[int, str]] = []
        self.notices: list[str] = []
        self._committer = committer

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def state_written(self, file: FileRecord, header: CheckpointHeader) -> None:
        self.written.append((file, header))
        if self._committer:
            self._committer.add(file, header)

    def state_failed(self, step: int, reason: str) -> None:
        self.failed.append((step, reason))
        if self._committer:
            self._committer.give_up(step)


def make_header(step: int, **fields: Any) -> CheckpointHeader:
    """Return the header of a checkpoint of one parameter, ``w``, with four elements."""
    return CheckpointHeader.model_validate(
        {
            "step": step,
            "optimizer_step": step,
            "cursor": {"epoch": 0, "window": 0, "offset": step},
            "data_digest": "0" * 64,
            "dataset_identity": "d",
            "recipe": {},
            "identity": {},
            "numerics": {},
            "parameters": {"w": [4]},
            "parameter_groups": [],
            "target_tokens_seen": 0,
            **fields,
        }
    )


def header_of(checkpoint: Path) -> CheckpointHeader:
    return read_header(checkpoint)


def rewrite_header(checkpoint: Path, **fields: Any) -> None:
    """Change fields of a checkpoint's header on disk."""
    header = header_of(checkpoint).model_copy(update=fields)
    (checkpoint / HEADER).write_text(header.to_json())


def work_folder(checkpoints: Path) -> Path:
    """Return a work folder like that of a run's owner."""
    work = checkpoints / ".work-00000001-test"
    work.mkdir(parents=True, exist_ok=True)
    return work


def write_state(
    work: Path,
    header: CheckpointHeader,
    fragments: Iterable[Fragment],
    placement: Placement,
    attempt: str = "a",
) -> FileRecord:
    """Write a rank's fragments, wait for the writer, and return the file's record."""
    from trainer.state.checkpoint_writer import CheckpointWriter

    owned, heard = list(fragments), Listener()
    writer = CheckpointWriter(
        lambda: owned,
        work=work,
        attempt=attempt,
        placement=placement,
        supervision=heard,  # type: ignore[arg-type]
    )
    writer.save(header, final=True)
    writer.close()
    return heard.written[0][0]


def commit_state(
    work: Path, header: CheckpointHeader, files: list[FileRecord], attempt: str = "a"
) -> Checkpoint:
    """Commit the files of the ranks as a checkpoint."""
    partial = partial_folder(work, header.step, attempt)
    return commit(partial, work.parent / folder_name(header.step), header, files)


def stepped_share(step: int, rank: int) -> list[Fragment]:
    """Return the share of one of two ranks in the parameter; its values depend on the step."""
    import torch

    from run_store.checkpoints.fragment import Fragment

    return [Fragment("master", "w", 2 * rank, torch.arange(2.0) + 2 * rank + step)]


def check_stepped(checkpoints: Path, when: str) -> list[Checkpoint]:
    """Check that there are checkpoints of stepped shares and that all are complete; return them."""
    import torch

    from run_store.checkpoints.reader import CheckpointReader

    found = [Checkpoint(path) for path in list_checkpoints(checkpoints)]
    assert found, when
    for checkpoint in found:
        checkpoint.verify()
        weights = CheckpointReader(checkpoint).weights()["w"]
        assert torch.equal(weights, torch.arange(4.0) + checkpoint.step), when
    return found


def save_checkpoint(
    checkpoints: Path, header: CheckpointHeader, shares: Sequence[Sequence[Fragment]]
) -> Checkpoint:
    """Write and commit a checkpoint of the fragments of each rank."""
    from trainer.process.placement import Placement

    work = work_folder(checkpoints)
    files = [
        write_state(work, header, share, Placement(rank=rank, world_size=len(shares)))
        for rank, share in enumerate(shares)
    ]
    return commit_state(work, header, files)
