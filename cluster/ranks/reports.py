"""Reports of a rank to its supervisor: a class per kind, and their numbered queue.

The rank trains in one thread of its actor and puts reports into a `Mailbox`. Other threads answer
the supervisor's polls. The mailbox keeps each report until the supervisor has received it, and
`ReceivedReports` drops reports that arrive twice. A poll can therefore be repeated at any time, and
no report is lost.

All reports but positions and details for the log are *urgent*: a waiting poll is answered at once.

Both processes run the same version of transloom, and reports are never stored. Reports therefore
have no version number, unlike the metrics lines and checkpoint headers that they contain.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass
from math import inf

from cluster.health.hang_detector import Position
from run_store.checkpoints.format import CheckpointHeader
from run_store.checkpoints.memory_file import MemoryFile, MemorySteps
from run_store.checkpoints.state_file import FileRecord
from run_store.record.metrics_lines import Line
from run_store.record.vitals import Phase


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


@dataclass(frozen=True)
class ReportBatch:
    """Consecutive reports of a rank.

    Attributes:
        first: the number of the first report; a rank counts its reports from 0.
        reports: each report with its time, in seconds of the node's monotonic clock.
        sent_at: the time on the same clock when the batch left the node.
    """

    first: int
    reports: list[tuple[float, Report]]
    sent_at: float

    @property
    def end(self) -> int:
        """Number of the report after this batch."""
        return self.first + len(self.reports)


class ReceivedReports:
    """Receiver of a rank's reports, which may arrive twice but without gaps.

    Attributes:
        end: the number of the next new report.
    """

    def __init__(self) -> None:
        self.end = 0
        self._newest_at = -inf

    def accept(self, batch: ReportBatch, now: float) -> list[tuple[float, Report]]:
        """Return the new reports of a batch, each with its time.

        The time of a report is too late by the transfer time of its batch. Times of a rank never
        decrease, so that an earlier position does not seem to be the last one.

        Args:
            now: the time at which the batch is accepted, by the clock of the returned times.
        """
        assert batch.first <= self.end, (batch.first, self.end)
        new = batch.reports[self.end - batch.first :]
        self.end = max(self.end, batch.end)
        accepted = []
        for made_at, report in new:
            self._newest_at = max(self._newest_at, now - (batch.sent_at - made_at))
            accepted.append((self._newest_at, report))
        return accepted


class Mailbox:
    """Implementation of `trainer.job.rank_job.Supervision` for an actor with several threads."""

    def __init__(self) -> None:
        self._reports: deque[tuple[float, Report]] = deque()
        self._first = 0  # number of the oldest report that is kept
        self._urgent_end = 0  # number of the report after the newest urgent one
        self._changed = threading.Condition()  # notified after an urgent report
        self._stop = threading.Event()
        self._memory_steps = MemorySteps()

    def progress(self, phase: Phase, step: int, where: str = "") -> None:
        self._put(Position(phase, step, where))

    def line(self, line: Line) -> None:
        self._put(RecordedLine(line))

    def notice(self, text: str) -> None:
        self._put(Notice(text))

    def log_detail(self, text: str) -> None:
        self._put(Detail(text))

    def state_written(self, file: FileRecord, header: CheckpointHeader) -> None:
        self._put(StateWritten(file, header))

    def state_failed(self, step: int, reason: str) -> None:
        self._put(StateFailed(step, reason))

    def memory_written(self, file: MemoryFile, header: CheckpointHeader) -> None:
        self._put(MemoryWritten(file, header))

    def memory_failed(self, step: int) -> None:
        self._put(MemoryFailed(step))

    def memory_steps(self) -> MemorySteps:
        return self._memory_steps

    def set_memory_steps(self, steps: MemorySteps) -> None:
        self._memory_steps = steps

    def stop_requested(self) -> bool:
        return self._stop.is_set()

    def request_stop(self) -> None:
        self._stop.set()

    def reports_since(self, number: int, seconds: float = 0.0) -> ReportBatch:
        """Return the kept reports with this number or a higher one.

        Args:
            seconds: the longest time to wait for an urgent report.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._urgent_end > number, seconds)
            first = max(number, self._first)
            reports = list(self._reports)[first - self._first :]
        return ReportBatch(first, reports, time.monotonic())

    def acknowledge(self, number: int) -> None:
        """Drop the reports with lower numbers, which the supervisor has received."""
        with self._changed:
            while self._first < number and self._reports:
                self._reports.popleft()
                self._first += 1

    def _put(self, report: Report) -> None:
        with self._changed:
            self._reports.append((time.monotonic(), report))
            if not isinstance(report, Position | Detail):
                self._urgent_end = self._first + len(self._reports)
                self._changed.notify_all()
