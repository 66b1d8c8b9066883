"""What a benchmark of the engine needs to run as a rank does."""

import os
import sys

from trainer.memory.host_memory import ALLOCATOR_ENVIRONMENT


def with_a_ranks_environment() -> None:
    """Starts the script anew in a rank's environment: libraries read it when a process starts."""
    if not ALLOCATOR_ENVIRONMENT.items() <= os.environ.items():
        os.execve(
            sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR_ENVIRONMENT}
        )
