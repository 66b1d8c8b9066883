"""Background thread that calls a function periodically."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Self

from foundation.untrusted_text import logger_of

MAX_FAILURES_IN_A_ROW = 10
EXCEPTIONS_PER_LOGGED_ONE = 100
LONGEST_BACKOFF = 16  # longest pause after failures, in intervals

logger = logger_of(__name__)


class ExceptionLog:
    """Log of the exceptions of a task that continues after exceptions.

    The log has the first exception of each class with its traceback, and then every
    `EXCEPTIONS_PER_LOGGED_ONE`-th exception of the class.
    """

    def __init__(self, task: str) -> None:
        self._task = task
        self._counts: Counter[type[Exception]] = Counter()

    def add(self, error: Exception) -> None:
        before = self._counts[type(error)]
        self._counts[type(error)] += 1
        if before % EXCEPTIONS_PER_LOGGED_ONE == 0:
            text = "%s goes on after an exception (%d of this class before): %r"
            logger.error(text, self._task, before, error, exc_info=error)


class PeriodicThread:
    """A daemon thread that calls a function once per interval, from `start` to `stop`.

    As a context manager, it starts on entry and stops on exit. Classes with a periodic task inherit
    from it, and so become context managers, too.

    The thread survives exceptions of the function, and logs some of them (see `ExceptionLog`).
    While calls keep failing, the interval doubles up to `LONGEST_BACKOFF` intervals. If other parts
    rely on the thread, it has `give_up` instead.
    """

    def __init__(
        self,
        name: str,
        interval_seconds: float | None,
        call: Callable[[], None],
        *,
        at_once: bool = False,
        at_end: Callable[[], None] | None = None,
        join_seconds: float | None = None,
        give_up: Callable[[Exception], None] | None = None,
    ) -> None:
        """Prepare the thread without starting it.

        Args:
            name: name of the thread.
            interval_seconds: time between two calls; with None or 0, no thread is started.
            at_once: whether to call the function immediately after the start, too.
            at_end: function that the thread calls last, or None.
            join_seconds: maximum time that `stop` waits for the thread, or None for no limit.
            give_up: receives the exception of the last of `MAX_FAILURES_IN_A_ROW` consecutive
                failures, after which the thread ends. Until then, the interval does not grow. None
                for a thread that never gives up.
        """
        self._interval_seconds = interval_seconds
        self._call = call
        self._at_once = at_once
        self._at_end = at_end
        self._join_seconds = join_seconds
        self._give_up = give_up
        self._failures_in_a_row = 0
        self._exceptions = ExceptionLog(f"the thread {name!r}")
        self._wakes = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        if self._interval_seconds:
            self._thread.start()

    def wake(self) -> None:
        """Call the function now, without waiting for the rest of the interval."""
        self._wakes.set()

    def stop(self) -> None:
        """Stop the thread after its current call, and wait for it."""
        self._over = True
        self._wakes.set()
        if self._interval_seconds:
            self._thread.join(self._join_seconds)

    def _work(self) -> None:
        if not self._at_once:
            self._wakes.wait(self._interval_seconds)
        while True:
            self._wakes.clear()  # before reading `_over`: `stop` sets `_over`, then this event
            if self._over:
                break
            try:
                self._call()
            except Exception as error:
                self._failures_in_a_row += 1
                self._exceptions.add(error)
                if self._give_up and self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                    self._give_up(error)
                    break
            else:
                self._failures_in_a_row = 0
            self._wakes.wait(self._pause_seconds())
        if self._at_end:
            self._at_end()

    def _pause_seconds(self) -> float:
        assert self._interval_seconds
        if self._give_up:
            return self._interval_seconds
        return self._interval_seconds * min(2**self._failures_in_a_row, LONGEST_BACKOFF)
