"""Quick inspection of a run's checkpoints.

The inspection reads headers, and compares the file sizes in each header with the actual sizes. It
does not prove that every byte is unchanged. To prove this, `transloom checkpoints verify` reads and
hashes all files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from foundation.file_model import Count, FileModel
from run_store.checkpoints.folder_names import folder_name, step_of
from run_store.checkpoints.format import HEADER, CheckpointHeader, read_header
from run_store.errors import CheckpointError, CheckpointFormatError
from run_store.scores import Scores

# Number of the newest checkpoints whose headers are read. For older checkpoints, only step and time
# are known.
HEADERS_READ = 10


class CheckpointRow(FileModel):
    """Summary of a checkpoint from its folder and header; its state files are not read.

    If the header was not read or is unreadable, `bytes` is None and there are no scores.
    """

    step: Count
    state: Literal["complete", "writing", "damaged"]
    bytes: Count | None = None
    time: float | None = None
    scores: Scores = Field(default_factory=dict)


def checkpoint_rows(
    folder: Path, paths: Sequence[Path]
) -> tuple[list[CheckpointRow], CheckpointHeader | None]:
    """Return the checkpoints of a folder, oldest first, and the newest readable header.

    Checkpoints that are still being written come last. The header is None if no header can be read.

    Args:
        folder: the run's directory of checkpoints.
        paths: the complete checkpoints, oldest first.
    """
    newest: CheckpointHeader | None = None
    rows = []
    for at, path in enumerate(paths):
        row = CheckpointRow(
            step=step_of(path), state="complete", time=modified_seconds(path / HEADER)
        )
        if at >= len(paths) - HEADERS_READ:
            try:
                header = newest = read_header(path)
                written = sum(file.bytes for file in header.files)
                state = "complete" if _has_all_bytes(path, header) else "damaged"
                row = row.model_copy(
                    update={"state": state, "bytes": written, "scores": header.scores}
                )
            except CheckpointFormatError:
                pass  # the checkpoint is complete, but another version wrote it
            except CheckpointError:
                row = row.model_copy(update={"state": "damaged"})
        rows.append(row)
    return rows + _being_written(folder, {row.step for row in rows}), newest


def _being_written(folder: Path, complete: set[int]) -> list[CheckpointRow]:
    """Return the checkpoints that ranks are writing; see `commit.partial_folder`."""
    found: dict[int, float | None] = {}
    for partial in sorted(folder.glob(f".work-*/{folder_name(0)[:5]}*")):
        step = partial.name.split("-")[1]
        if step.isdecimal() and int(step) not in complete:
            found[int(step)] = modified_seconds(partial)
    return [CheckpointRow(step=at, state="writing", time=time) for at, time in found.items()]


def _has_all_bytes(path: Path, header: CheckpointHeader) -> bool:
    try:
        return all((path / file.name).stat().st_size == file.bytes for file in header.files)
    except OSError:
        return False


def modified_seconds(path: Path) -> float | None:
    """Return the modification time in seconds since the epoch, or None if there is no such file."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None
