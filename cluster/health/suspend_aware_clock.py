"""Clock that pauses while this process is suspended.

After a suspension, wall time would wrongly suggest that other processes have been silent.
"""

import time
from collections.abc import Callable

MAX_POLL_INTERVAL_SECONDS = 1.0


class SuspendAwareClock:
    """Clock that counts only the seconds during which this process was not suspended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = clock()
        self._awake = 0.0

    def poll(self) -> float:
        """Return the seconds not suspended; one thread must call this at least once a second."""
        now = self._clock()
        self._awake += min(now - self._looked, MAX_POLL_INTERVAL_SECONDS)
        self._looked = now
        return self._awake
