"""The functions that the commands of a job call by name; both processes begin here.

::

    python -c run_job        starts the training process, then is the runner: it waits for room
    python -c take_order     the training process, see training_process.py

This file imports little, so that both import their own modules at the same time.
"""

import json
import os
import sys
from pathlib import Path

from cluster.launchers.ray_job.training_process import ENTRANCE, OWN, start, training_command
from cluster.ray.environment_file import VARIABLE

NO_ORDER = 75  # the exit code of a process that never got its arguments
NO_ENTRY_POINT = (
    "error: this job was submitted by an older transloom, which did not name an entry point; the "
    "node now has a newer one. Submit the job again with the version that the node has"
)


def job_code(entry_point: str) -> str:
    """Return the Python code of a job's command.

    Args:
        entry_point: a module with a function `main`, the command line.
    """
    return f"{OWN}{ENTRANCE} run_job; run_job({entry_point!r})"


def run_job(entry_point: str | None = None) -> None:
    """Run a job to its end and exit; `sys.argv` has the file with its id and request.

    Args:
        entry_point: see `job_code`. Older clients sent none.
    """
    if entry_point is None:
        sys.exit(NO_ENTRY_POINT)
    command = training_command(entry_point)
    # What a file of variables says may count while modules are imported, so that is read first.
    ready = None if VARIABLE in os.environ else start(command, os.environ)
    from cluster.launchers.ray_job.runner import run

    sys.exit(run(Path(sys.argv[1]), command, ready))


def take_order() -> None:
    """Wait for the arguments, and set arguments, folder and environment; exit without any."""
    if not (line := sys.stdin.readline()):
        sys.exit(NO_ORDER)
    told = json.loads(line)
    os.environ.update(told["environment"])
    os.chdir(told["folder"])
    sys.argv[1:] = told["words"]
