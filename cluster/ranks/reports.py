"""What a rank reports to its supervisor, a class for each thing that it may say.

Reports pass between processes of one version and are never stored, so they have no version of
their own; the lines and headers in them have.
"""

from dataclasses import dataclass

from cluster.health.hang_detector import Position
from trainer.checkpoints.format import CheckpointHeader, FileRecord
from trainer.record.records import Line


@dataclass(frozen=True)
class RecordedLine:
    """Rank 0 has written this line to the record."""

    line: Line


@dataclass(frozen=True)
class Notice:
    """Something happened to the rank that a person would want to know."""

    text: str


@dataclass(frozen=True)
class Detail:
    """A text for the run's log alone."""

    text: str


@dataclass(frozen=True)
class StateWritten:
    """The rank has written its part of a checkpoint."""

    file: FileRecord
    header: CheckpointHeader


@dataclass(frozen=True)
class StateFailed:
    """The rank could not write its part of the checkpoint of a step."""

    step: int
    reason: str


Report = Position | RecordedLine | Notice | Detail | StateWritten | StateFailed
