"""What a rank tells its supervisor, and what the supervisor may ask of it.

Under Ray the supervisor is the driver and the calls cross processes; `transloom train --inline`
supervises itself. Either way the supervisor commits checkpoints, once all ranks have written.
"""

import secrets
from pathlib import Path
from typing import Literal, Protocol

from trainer.checkpoints.commit import commit, discard, partial_folder
from trainer.checkpoints.format import CheckpointHeader, FileRecord
from trainer.checkpoints.lease import Lease
from trainer.checkpoints.retention import prune
from trainer.config import CheckpointsConfig
from trainer.metrics import Line

Outcome = Literal["finished", "preempted"]
Phase = Literal["start", "step", "validation", "save", "done"]


class Supervision(Protocol):
    """The rank's side of the conversation."""

    def progress(self, phase: Phase, step: int, where: str = "") -> None:
        """The rank has entered a phase at a step; ``where`` names its data's coordinates."""

    def line(self, line: Line) -> None:
        """Rank 0 has written this line to the record."""

    def notice(self, text: str) -> None:
        """Something happened to the rank that a person would want to know."""

    def state_written(self, file: FileRecord, header: CheckpointHeader) -> None:
        """The rank has written its part of a checkpoint; it counts once all ranks have."""

    def state_failed(self, step: int, reason: str) -> None:
        """The rank could not write its part, so there is no checkpoint of this step."""

    def stop_requested(self) -> bool:
        """Whether the run shall checkpoint at the next step boundary and leave."""


class CheckpointCommitter:
    """Collects the ranks' parts of checkpoints and commits those that are complete.

    ``attempt`` names this start of the ranks: what a rank of another one still writes is apart.
    """

    def __init__(
        self, lease: Lease, checkpoints: Path, config: CheckpointsConfig, world_size: int
    ) -> None:
        self.attempt = secrets.token_hex(4)
        self.work = lease.work
        self._lease = lease
        self._checkpoints = checkpoints
        self._config = config
        self._world_size = world_size
        self._files: dict[int, list[FileRecord]] = {}
        self._failed: set[int] = set()
        self.newest_step = 0

    def add(self, file: FileRecord, header: CheckpointHeader) -> bool:
        """Take note of a rank's part; returns whether it completed the checkpoint.

        Raises:
            LeaseLostError: the run belongs to somebody else by now.
        """
        if header.step in self._failed:
            return False
        files = self._files.setdefault(header.step, [])
        files.append(file)
        if len(files) < self._world_size:
            return False
        self._lease.check()
        commit(self._partial(header.step), self._checkpoints, header, self._files.pop(header.step))
        self.newest_step = header.step
        prune(self._checkpoints, self.work, self._config)
        return True

    def give_up(self, step: int) -> bool:
        """A rank could not write its part; returns whether that is news."""
        news = step not in self._failed
        self._failed.add(step)
        self._files.pop(step, None)
        discard(self._partial(step))
        return news

    def _partial(self, step: int) -> Path:
        return partial_folder(self.work, step, self.attempt)
