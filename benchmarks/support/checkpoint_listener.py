"""Receive the reports of a checkpoint writer, without a driver."""

import sys
import threading

from trainer.checkpoints.format import CheckpointHeader
from trainer.checkpoints.state_file import FileRecord


class Listener:
    """Receiver that ends the benchmark at a failed save.

    Attributes:
        written: set at each file that is completely on the disk.
    """

    def __init__(self) -> None:
        self.written = threading.Event()

    def state_written(self, file: FileRecord, header: CheckpointHeader) -> None:
        self.written.set()

    def state_failed(self, step: int, reason: str) -> None:
        sys.exit(reason)

    def notice(self, text: str) -> None:
        print(text, file=sys.stderr)
