"""Retry schedule for the last checkpoint of a run when it cannot be saved, as on a full disk."""

import time
from collections.abc import Iterator

FINAL_RETRY_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 1.0


def final_save_attempts() -> Iterator[float]:
    """Yield, for each try, the seconds left for further tries; yield 0 for the last try.

    Between two tries, the generator sleeps. Each pause is twice as long as the previous one.
    """
    deadline, pause = time.monotonic() + FINAL_RETRY_SECONDS, FIRST_PAUSE_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        yield left
        time.sleep(min(pause, left))
        pause *= 2
    yield 0.0
