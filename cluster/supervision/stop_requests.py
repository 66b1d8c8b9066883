"""Requests to stop a run: a signal to its supervisor or job, or a file in its folder.

    StopRequests    for the supervisor, which owns the run
    JobStopRequest  for a job, which forwards a signal to its supervisor by creating the file

After the first request, the ranks checkpoint at the next step boundary and leave. A second signal
interrupts the supervisor immediately. Before a run has begun, there is nothing to save, and after
its end there is nothing to interrupt: see `command_signals`.
"""

import os
import signal
import time
from contextlib import suppress
from types import FrameType
from typing import Self

from cluster.supervision.command_signals import SIGNALS, exit_immediately
from cluster.supervision.interval import Interval
from cluster.supervision.invocation import JOB_VARIABLE
from run_store.folder import RunFolder
from run_store.start import StopOrder

POLL_SECONDS = 0.5
ORDER_SECONDS, ORDER_POLL_SECONDS = 15.0, 0.1


class StopRequests:
    """Stop requests by signals or by the request file, observed while the context lasts."""

    def __init__(self, run: RunFolder) -> None:
        self.asked_at: float | None = None  # time of the signal, by time.monotonic()
        self._run = run
        self._former = run.stop_requested_at()
        self._signal: int | None = None
        self._obeys_interrupts = True
        self._file_taken = False
        self._order: StopOrder | None = None
        self._looks = Interval(POLL_SECONDS)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self.ignore_requests()
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if handler is exit_immediately else handler)

    def ignore_requests(self) -> None:
        """Ignore second signals from now on, because the outcome of the run is certain."""
        self._obeys_interrupts = False

    def accept_requests(self) -> None:
        """Obey second signals again, because the run continues after all."""
        self._obeys_interrupts = True

    def forget_file(self) -> None:
        """Remove a request file that is older than this object.

        Such a file was meant for a former owner of the run. Only the run's owner may call this.
        """
        self._poll_file()

    @property
    def reason(self) -> str | None:
        """The request as text, or None without a request."""
        if not self._file_taken and self._looks.has_passed(time.monotonic()):
            self._poll_file()
        if self._order:
            return self._order.text
        if self._signal is not None:
            return f"{signal.Signals(self._signal).name} was received"
        return f"{self._run.stop_request} was created" if self._file_taken else None

    def late_order(self) -> str | None:
        """Wait for the name of the person who has stopped this process's job by a signal.

        A signal has no name. The job's runner writes the name into the request file, perhaps after
        the ranks have left.

        Returns:
            The order as text, also if it was known before; None without a signal or a name.
        """
        deadline = time.monotonic() + (ORDER_SECONDS if JOB_VARIABLE in os.environ else 0.0)
        while self._signal and not self._file_taken and time.monotonic() < deadline:
            self._poll_file()
            time.sleep(ORDER_POLL_SECONDS)
        return self._order.text if self._signal and self._order else None

    def _poll_file(self) -> None:
        if self._run.take_stop_request(self._former):
            self._file_taken = True
            self._order = self._run.stop_order()
            self.asked_at = self.asked_at or time.monotonic()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal = number
            self.asked_at = self.asked_at or time.monotonic()
        elif self._obeys_interrupts:
            self._obeys_interrupts = False  # a further signal would interrupt the cleanup
            raise KeyboardInterrupt


class JobStopRequest:
    """A request to stop a job, by a signal to its runner or by the run's request file.

    A file that is older than this object is ignored, because it was meant for another job.

    When Ray stops a job, its runner and the driver both receive SIGTERM. A second signal would end
    the driver without a checkpoint. The runner therefore forwards a signal by creating the request
    file. It does so only while its driver owns the run, because the owner may be the driver of
    another job.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._former = run.stop_requests()
        self._signal: int | None = None
        self._forwarded = False

    def listen(self) -> None:
        """Install the signal handlers; call this in the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    @property
    def reason(self) -> str | None:
        """The request as text, or None without a request."""
        if self._signal is not None:
            return f"{signal.Signals(self._signal).name} was received"
        if self._run.stop_requests() - self._former:
            order = self._run.stop_order()
            return order.text if order else f"{self._run.stop_request} was created"
        return None

    @property
    def by_signal(self) -> bool:
        return self._signal is not None

    def forward(self, order: StopOrder | None) -> None:
        """Ask the driver, which owns the run, to stop, because a signal was received.

        Call this repeatedly until the driver has left: the driver drops requests that are older
        than its start.

        Args:
            order: who has stopped the job, if it is known.
        """
        self._forwarded = True
        with suppress(OSError):
            self._run.ask_to_stop(order)

    def clear(self) -> None:
        """Remove a forwarded request that the driver has not processed."""
        if self._forwarded:
            self._run.take_stop_request()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signal = self._signal or number
