"""Run a benchmark of the engine in the environment of a rank."""

import os
import sys

from trainer.process.host_memory import ALLOCATOR_ENVIRONMENT


def restart_in_rank_environment() -> None:
    """Restart the script with a rank's environment variables, unless it already has them.

    A restart is necessary because libraries read these variables when a process starts.
    """
    if not ALLOCATOR_ENVIRONMENT.items() <= os.environ.items():
        os.execve(
            sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR_ENVIRONMENT}
        )
