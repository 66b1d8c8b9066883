"""Whether somebody has asked a job to stop: by a signal to its runner, or by a file in its run."""

import signal
from contextlib import suppress
from types import FrameType

from trainer.runs.folder import RunFolder

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopWish:
    """Listens from its making on; what was asked before was meant for others.

    When Ray stops a job, its runner and the driver get SIGTERM both. A second signal would end the
    driver without a checkpoint. So the runner hands a signal on as the file that asks for the same,
    while its driver owns the run: the owner may be the driver of another job.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._former = run.stop_requests()
        self._signal: int | None = None
        self._handed_on = False

    def listen(self) -> None:
        """Take signals; to be called in the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    @property
    def reason(self) -> str | None:
        """Who has asked, in words; None if nobody has."""
        if self._signal is not None:
            return f"{signal.Signals(self._signal).name} was received"
        if self._run.stop_requests() - self._former:
            return f"{self._run.stop_request} was created"
        return None

    def hand_on(self) -> None:
        """Ask the driver, which owns the run, to stop if a signal has come here.

        To be called again and again until the driver has left: before it listens to requests it
        forgets those that are there.
        """
        if self._signal is not None:
            self._handed_on = True
            with suppress(OSError):
                self._run.ask_to_stop()

    def clear(self) -> None:
        """Remove a request that was handed on and not taken."""
        if self._handed_on:
            self._run.take_stop_request()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signal = self._signal or number
