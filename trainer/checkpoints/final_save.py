"""How long a run tries to save its last checkpoint when it cannot, on a full disk for example."""

import time
from collections.abc import Iterator

FINAL_RETRY_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 1.0


def final_save_attempts() -> Iterator[float]:
    """The seconds left at each try, with growing pauses between tries; 0 at the last try."""
    deadline, pause = time.monotonic() + FINAL_RETRY_SECONDS, FIRST_PAUSE_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        yield left
        time.sleep(min(pause, left))
        pause *= 2
    yield 0.0
