"""Reports of a rank to its supervisor: a class per kind, and the queue for them.

The rank trains in one thread of its actor and puts reports into a `Mailbox`. Another thread of the
actor returns them when the supervisor polls.

Both processes run the same version of transloom, and reports are never stored. Reports therefore
have no version number, unlike the metrics lines and checkpoint headers that they contain.
"""

import queue
import threading
from dataclasses import dataclass

from cluster.health.hang_detector import Position
from trainer.checkpoints.format import CheckpointHeader
from trainer.checkpoints.memory_file import MemoryFile, MemorySteps
from trainer.checkpoints.state_file import FileRecord
from trainer.record.metrics_lines import Line
from trainer.runs.vitals import Phase


@dataclass(frozen=True)
class RecordedLine:
    """A line that rank 0 has written to the metrics file."""

    line: Line


@dataclass(frozen=True)
class Notice:
    """Message of the rank for users."""

    text: str


@dataclass(frozen=True)
class Detail:
    """Text for the run's log only."""

    text: str


@dataclass(frozen=True)
class StateWritten:
    """Report that the rank has written its part of a checkpoint."""

    file: FileRecord
    header: CheckpointHeader


@dataclass(frozen=True)
class StateFailed:
    """Report that the rank could not write its part of a step's checkpoint."""

    step: int
    reason: str


@dataclass(frozen=True)
class MemoryWritten:
    """Report that the rank has written its share of a step to its node's memory."""

    file: MemoryFile
    header: CheckpointHeader


@dataclass(frozen=True)
class MemoryFailed:
    """Report that the rank has not written its share of a step to its node's memory."""

    step: int


Report = (
    Position
    | RecordedLine
    | Notice
    | Detail
    | StateWritten
    | StateFailed
    | MemoryWritten
    | MemoryFailed
)


class Mailbox:
    """Implementation of `trainer.job.supervision.Supervision` with the two threads of an actor."""

    def __init__(self) -> None:
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._memory_steps = MemorySteps()

    def progress(self, phase: Phase, step: int, where: str = "") -> None:
        self._reports.put(Position(phase, step, where))

    def line(self, line: Line) -> None:
        self._reports.put(RecordedLine(line))

    def notice(self, text: str) -> None:
        self._reports.put(Notice(text))

    def log_detail(self, text: str) -> None:
        self._reports.put(Detail(text))

    def state_written(self, file: FileRecord, header: CheckpointHeader) -> None:
        self._reports.put(StateWritten(file, header))

    def state_failed(self, step: int, reason: str) -> None:
        self._reports.put(StateFailed(step, reason))

    def memory_written(self, file: MemoryFile, header: CheckpointHeader) -> None:
        self._reports.put(MemoryWritten(file, header))

    def memory_failed(self, step: int) -> None:
        self._reports.put(MemoryFailed(step))

    def memory_steps(self) -> MemorySteps:
        return self._memory_steps

    def set_memory_steps(self, steps: MemorySteps) -> None:
        self._memory_steps = steps

    def stop_requested(self) -> bool:
        return self._stop.is_set()

    def request_stop(self) -> None:
        self._stop.set()

    def drain(self) -> list[Report]:
        return [self._reports.get() for _ in range(self._reports.qsize())]
