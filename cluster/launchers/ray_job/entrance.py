"""The entry point of a job: it starts the training process, then runs the job's runner.

Submitted commands call `run_job` of this module by name, so its import path is part of the protocol
between clients and nodes. The module imports little, so that the training process starts early and
both processes import the remaining modules in parallel.
"""

import os
import sys
from pathlib import Path

from cluster.launchers.ray_job.preloaded_process import IMPORT_OWN_PACKAGES, start, training_command
from cluster.ray.environment_file import VARIABLE

IMPORT_BOOTSTRAP = "from cluster.launchers.ray_job.entrance import"


def job_code(entry_point: str) -> str:
    """Return the Python code of a job's command.

    Args:
        entry_point: a module with a function `main`, the command line.
    """
    return f"{IMPORT_OWN_PACKAGES}{IMPORT_BOOTSTRAP} run_job; run_job({entry_point!r})"


def run_job(entry_point: str) -> None:
    """Run a job until its end and exit; `sys.argv[1]` is the file with the job's id and request.

    Args:
        entry_point: see `job_code`.
    """
    command = training_command(entry_point)
    # The environment file may set variables that affect imports, so it must be read before them.
    ready = None if VARIABLE in os.environ else start(command, os.environ)
    from cluster.launchers.ray_job.runner import run

    sys.exit(run(Path(sys.argv[1]), command, ready))
