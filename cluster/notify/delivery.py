"""Delivery of notifications in the background: a bounded queue and a thread for each target.

The run only appends to queues, so a target that fails or hangs delays neither the
run nor other targets:

    attempt      ends after ATTEMPT_SECONDS
    retries      after PAUSES_SECONDS, if another attempt may succeed; then the message is lost
    queue        keeps MAX_WAITING messages; a further one replaces the oldest
    end          waits for all threads together, for at most LAST_SECONDS

A lost message is a notice in the log of the run.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from cluster.notify.notification import Notification
from cluster.notify.targets import CommandTarget, DeliveryProblem
from foundation.wording import counted

ATTEMPT_SECONDS = 10.0
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)
LAST_PAUSE_SECONDS = 0.5  # pause between attempts at the end of the run
LAST_SECONDS = 5.0
MAX_WAITING = 50


class DeliveryThread:
    """Thread that delivers the notifications of a queue to one target."""

    def __init__(self, target: CommandTarget, notice: Callable[[str], None]) -> None:
        """Start the thread.

        Args:
            notice: called with a text about each lost notification; called by several threads.
        """
        self._target = target
        self._notice = notice
        self._changed = threading.Condition()
        self._waiting: deque[Notification] = deque()
        self._is_sending = False
        # Time at which the process stops waiting for this thread, by time.monotonic().
        self._deadline = math.inf
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._work, name="notifications", daemon=True)
        self._thread.start()

    def put(self, notification: Notification) -> None:
        """Append a notification to the queue, and return immediately."""
        with self._changed:
            full = len(self._waiting) >= MAX_WAITING
            lost = self._waiting.popleft() if full else None
            self._waiting.append(notification)
            self._changed.notify()
        if lost:
            self._notice(
                f"the notification {lost.event} to {self._target.name} is lost, because "
                f"{MAX_WAITING} later ones are waiting"
            )

    def begin_end(self, deadline: float) -> None:
        """Ask the thread to end after the waiting notifications, or at the deadline."""
        with self._changed:
            self._deadline = deadline
            self._changed.notify()

    def join(self) -> None:
        """Wait for the thread until the deadline; report the notifications that remain."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        left = self.abandon()
        if left:
            self._notice(
                f"{counted(left, 'notification')} to {self._target.name} could not be delivered "
                f"within {LAST_SECONDS:g} s of the run's end"
            )

    def abandon(self) -> int:
        """Make the thread stop without further notices; return the number of lost messages."""
        with self._changed:
            self._is_abandoned = True
            self._deadline = 0.0
            self._changed.notify()
            left = len(self._waiting) + self._is_sending
        self._target.stop()
        return left

    @property
    def _seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def _work(self) -> None:
        while notification := self._next():
            self._deliver(notification)
            with self._changed:
                self._is_sending = False

    def _next(self) -> Notification | None:
        """Wait for a notification; return None if the thread must end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._deadline < math.inf)
            if not self._waiting or self._seconds_left <= 0:
                return None
            self._is_sending = True
            return self._waiting.popleft()

    def _deliver(self, notification: Notification) -> None:
        pauses = iter(PAUSES_SECONDS)
        attempts = 1
        while problem := self._attempt(notification):
            pause_seconds = next(pauses, None)
            if not problem.is_temporary or pause_seconds is None:
                break
            self._pause(pause_seconds)
            if self._seconds_left <= 0:
                break
            attempts += 1
        if problem is None:
            return
        with self._changed:
            if self._is_abandoned:
                return
            self._is_sending = False  # so that `abandon` does not count it
        after = f" (after {counted(attempts, 'attempt')})" if attempts > 1 else ""
        self._notice(
            f"the notification {notification.event} to {self._target.name} could not be delivered: "
            f"{problem.text}{after}. `transloom notify RECIPE` tests the targets"
        )

    def _attempt(self, notification: Notification) -> DeliveryProblem | None:
        seconds = min(ATTEMPT_SECONDS, max(self._seconds_left, 0.1))
        try:
            return self._target.send(notification, seconds)
        except Exception as error:
            # The error's text is not shown, because it may contain the command.
            return DeliveryProblem(f"unexpected {type(error).__name__}", is_temporary=False)

    def _pause(self, seconds: float) -> None:
        """Wait before another attempt, for a shorter time at the end of the run."""
        with self._changed:
            if self._deadline == math.inf:
                self._changed.wait_for(lambda: self._deadline < math.inf, seconds)
                return
        time.sleep(max(0.0, min(seconds, LAST_PAUSE_SECONDS, self._seconds_left)))


class Deliveries:
    """Delivery threads of all targets."""

    def __init__(self, targets: Sequence[CommandTarget], notice: Callable[[str], None]) -> None:
        """Start the threads; `notice` is called by any of them."""
        self._threads = [DeliveryThread(target, notice) for target in targets]

    def put(self, notification: Notification) -> None:
        """Append a notification to the queues of all targets, and return immediately."""
        for thread in self._threads:
            thread.put(notification)

    def finish(self) -> None:
        """Deliver the waiting notifications, but wait for at most `LAST_SECONDS`.

        An interrupt ends only the wait, because the run has already ended.
        """
        deadline = time.monotonic() + LAST_SECONDS
        for thread in self._threads:
            thread.begin_end(deadline)
        try:
            for thread in self._threads:
                thread.join()
        except KeyboardInterrupt:
            self.abandon()

    def abandon(self) -> None:
        """End all threads without waiting for them."""
        for thread in self._threads:
            thread.abandon()
