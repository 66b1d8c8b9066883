"""How a run is asked to stop: by a signal to its supervisor, or by a file in its folder.

The first request is a wish: the ranks checkpoint at the next step boundary and leave. A second
signal is an order: it interrupts whatever is going on. Before a run has begun there is nothing to
save, and after its end there is nothing to interrupt: see `command_signals`.
"""

import signal
import time
from types import FrameType, TracebackType
from typing import Self

from cluster.supervision.command_signals import SIGNALS, leave_at_once
from cluster.supervision.interval import Interval
from trainer.runs.folder import RunFolder

LOOK_SECONDS = 0.5


class StopRequests:
    """Listens to signals and the request file as long as the context lasts."""

    def __init__(self, run: RunFolder) -> None:
        self.asked_at: float | None = None  # by time.monotonic()
        self._run = run
        self._former = run.stop_requested_at()
        self._signal: int | None = None
        self._obeys_orders = True
        self._file_taken = False
        self._looks = Interval(LOOK_SECONDS)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.let_outcome_stand()
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if handler is leave_at_once else handler)

    def let_outcome_stand(self) -> None:
        """Ignore orders from now on: it is certain how the run ends."""
        self._obeys_orders = False

    def outcome_is_open(self) -> None:
        """Obey orders again: the run goes on after all."""
        self._obeys_orders = True

    def forget_file(self) -> None:
        """Remove a request file that was meant for whoever trained the run before.

        It was there when this process began to listen. To be called by the run's owner.
        """
        self._look()

    @property
    def reason(self) -> str | None:
        """Who has asked, in words; None if nobody has."""
        if self._signal is not None:
            return f"{signal.Signals(self._signal).name} was received"
        if not self._file_taken and self._looks.has_passed(time.monotonic()):
            self._look()
        return f"{self._run.stop_request} was created" if self._file_taken else None

    def _look(self) -> None:
        if self._run.take_stop_request(self._former):
            self._file_taken = True
            self.asked_at = self.asked_at or time.monotonic()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal = number
            self.asked_at = self.asked_at or time.monotonic()
        elif self._obeys_orders:
            self._obeys_orders = False  # a further one would interrupt the clearing up
            raise KeyboardInterrupt
