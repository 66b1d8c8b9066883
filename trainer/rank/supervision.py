"""What a rank tells its supervisor, and what the supervisor may ask of it.

Under Ray the supervisor is the driver, and the calls cross processes; `transloom train --inline`
supervises itself. Either way the supervisor commits checkpoints, once all ranks have written.
"""

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from trainer.checkpoints.format import CheckpointHeader, FileRecord
    from trainer.record.metrics_lines import Line
    from trainer.runs.vitals import Phase

Outcome = Literal["finished", "preempted"]


class Supervision(Protocol):
    """The rank's side of the conversation."""

    def progress(self, phase: "Phase", step: int, where: str = "") -> None:
        """The rank has entered a phase at a step.

        Args:
            where: the coordinates of its data, in words.
        """

    def line(self, line: "Line") -> None:
        """Rank 0 has written this line to the record."""

    def notice(self, text: str) -> None:
        """Something happened to the rank that a person would want to know."""

    def log_detail(self, text: str) -> None:
        """Write a detail to the run's log without showing it."""

    def state_written(self, file: "FileRecord", header: "CheckpointHeader") -> None:
        """The rank has written its part of a checkpoint; it counts once all ranks have."""

    def state_failed(self, step: int, reason: str) -> None:
        """The rank could not write its part, so there is no checkpoint of this step."""

    def stop_requested(self) -> bool:
        """Whether the run shall checkpoint at the next step boundary and leave."""
