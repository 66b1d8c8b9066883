"""Background thread that calls a function periodically."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class PeriodicThread:
    """A daemon thread that calls a function once per interval, from `start` to `stop`.

    As a context manager, it starts on entry and stops on exit. Classes with a periodic task inherit
    from it, and so become context managers, too. An exception in the function ends the thread.
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
    ) -> None:
        """Prepare the thread without starting it.

        Args:
            name: name of the thread.
            interval_seconds: time between two calls; None or 0 for no thread.
            at_once: whether to call the function also immediately after the start.
            at_end: function that the thread calls last, or None.
            join_seconds: maximum time that `stop` waits for the thread, or None for no limit.
        """
        self._interval_seconds = interval_seconds
        self._call = call
        self._at_once = at_once
        self._at_end = at_end
        self._join_seconds = join_seconds
        self._wakes = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
            self._call()
            self._wakes.wait(self._interval_seconds)
        if self._at_end:
            self._at_end()
