"""What a rank tells its supervisor, and what the supervisor may ask of it.

Under Ray the supervisor is the driver and the calls cross processes; `transloom train --inline`
supervises itself. Either way the supervisor commits checkpoints, once all ranks have written.
"""

import secrets
from pathlib import Path
from typing import Literal, Protocol

from trainer.checkpoint import CheckpointHeader, FileRecord, commit, partial_folder, prune
from trainer.config import CheckpointsConfig
from trainer.metrics import Line

Outcome = Literal["finished", "preempted"]


class Supervision(Protocol):
    """The rank's side of the conversation."""

    def progress(self, phase: str, step: int) -> None:
        """The rank has entered a phase (start, step, validate, save, done) at a step."""

    def line(self, line: Line) -> None:
        """Rank 0 has written this line to the record."""

    def notice(self, text: str) -> None:
        """Something happened to the rank that a person would want to know."""

    def state_written(self, file: FileRecord, header: CheckpointHeader) -> None:
        """The rank has written its part of a checkpoint; it counts once all ranks have."""

    def stop_requested(self) -> bool:
        """Whether the run shall checkpoint at the next step boundary and leave."""


class CheckpointCommitter:
    """Collects the ranks' parts of checkpoints and commits those that are complete.

    ``attempt`` names this start of the ranks: what a rank of another one still writes is apart.
    """

    def __init__(self, checkpoints: Path, config: CheckpointsConfig, world_size: int) -> None:
        self.attempt = secrets.token_hex(4)
        self._checkpoints = checkpoints
        self._config = config
        self._world_size = world_size
        self._files: dict[int, list[FileRecord]] = {}
        self.newest_step = 0

    def add(self, file: FileRecord, header: CheckpointHeader) -> bool:
        """Take note of a rank's part; returns whether it completed the checkpoint."""
        files = self._files.setdefault(header.step, [])
        files.append(file)
        if len(files) < self._world_size:
            return False
        partial = partial_folder(self._checkpoints, header.step, self.attempt)
        commit(partial, header, self._files.pop(header.step))
        self.newest_step = header.step
        prune(self._checkpoints, self._config.keep_last, self._config.keep_best)
        return True
