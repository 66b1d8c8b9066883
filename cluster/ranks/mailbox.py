"""The reports of a rank's actor to the supervisor, and their way there.

The rank trains in one thread of its actor and puts reports into a mailbox; another thread hands
them to the supervisor, which asks for them.
"""

import queue
import threading

from cluster.health.hang_detector import Position
from cluster.ranks.reports import (
    Detail,
    Notice,
    RecordedLine,
    Report,
    StateFailed,
    StateWritten,
)
from trainer.checkpoints.format import CheckpointHeader, FileRecord
from trainer.record.records import Line
from trainer.runs.vitals import Phase


class Mailbox:
    """`trainer.rank.supervision.Supervision` between the two threads of a rank's actor."""

    def __init__(self) -> None:
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._stop = threading.Event()

    def progress(self, phase: Phase, step: int, where: str = "") -> None:
        self._reports.put(Position(phase, step, where))

    def line(self, line: Line) -> None:
        self._reports.put(RecordedLine(line))

    def notice(self, text: str) -> None:
        self._reports.put(Notice(text))

    def keep(self, text: str) -> None:
        self._reports.put(Detail(text))

    def state_written(self, file: FileRecord, header: CheckpointHeader) -> None:
        self._reports.put(StateWritten(file, header))

    def state_failed(self, step: int, reason: str) -> None:
        self._reports.put(StateFailed(step, reason))

    def stop_requested(self) -> bool:
        return self._stop.is_set()

    def request_stop(self) -> None:
        self._stop.set()

    def drain(self) -> list[Report]:
        return [self._reports.get() for _ in range(self._reports.qsize())]
