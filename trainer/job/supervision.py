"""Messages between a rank and its supervisor.

Under Ray the supervisor is the driver, and the calls cross processes; `transloom train --inline`
supervises itself. In both cases the supervisor commits a checkpoint when all ranks have written
their parts.
"""

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from trainer.checkpoints.format import CheckpointHeader
    from trainer.checkpoints.memory_file import MemoryFile, MemorySteps
    from trainer.checkpoints.state_file import FileRecord
    from trainer.record.metrics_lines import Line
    from trainer.runs.vitals import Phase

Outcome = Literal["finished", "stopped"]


class Supervision(Protocol):
    """Interface through which a rank reports to its supervisor."""

    def progress(self, phase: "Phase", step: int, where: str = "") -> None:
        """Report that the rank has entered a phase at a step.

        Args:
            phase: the phase that begins.
            step: the step.
            where: the cursor of the step's data, as text.
        """

    def line(self, line: "Line") -> None:
        """Report that rank 0 has written this line to the metrics file."""

    def notice(self, text: str) -> None:
        """Report an event of the rank that a user should see."""

    def log_detail(self, text: str) -> None:
        """Write a detail to the run's log without showing it."""

    def state_written(self, file: "FileRecord", header: "CheckpointHeader") -> None:
        """Report that the rank has written its part of a checkpoint; other parts may be missing."""

    def state_failed(self, step: int, reason: str) -> None:
        """Report that the rank could not write its part, so there is no checkpoint of this step."""

    def memory_written(self, file: "MemoryFile", header: "CheckpointHeader") -> None:
        """Report that the rank has written its share of a step to its node's memory."""

    def memory_failed(self, step: int) -> None:
        """Report that the rank has not written its share of a step to its node's memory."""

    def memory_steps(self) -> "MemorySteps":
        """Return the supervisor's latest report on the memory tier."""

    def stop_requested(self) -> bool:
        """Return whether the run must checkpoint at the next step boundary and exit."""
