"""What a benchmark of the engine needs to run as a rank does."""

import os
import sys

from trainer.memory.host_memory import KEPT_BY_LIBRARIES


def with_a_ranks_environment() -> None:
    """Starts the script anew in a rank's environment: libraries read it when a process starts."""
    if not KEPT_BY_LIBRARIES.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEPT_BY_LIBRARIES})
