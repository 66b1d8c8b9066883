"""The way into a job's command: what takes seconds to import is imported twice at the same time.

::

    python -c RUN_JOB      starts ▼, then is the runner: reads what was sent, looks for room
    python -c TRAIN        imports what trains, waits for its order, then is `transloom train`

So this file imports little.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.environment_file import VARIABLE

# Our packages first, whatever folder of the same names stands on the path. With -P the folder in
# which a process starts is no place for our code.
_OWN = "from cluster.packages import import_own_packages; import_own_packages(); "
_HERE = "from cluster.launchers.ray_job.entrance import"
RUN_JOB = f"{_OWN}{_HERE} run_job; run_job()"
TRAIN = [
    sys.executable,
    "-P",
    "-c",
    f"{_OWN}import cluster.commands.train, cluster.cli.app; "
    f"{_HERE} take_order; take_order(); cluster.cli.app.main()",
    "transloom",  # for whoever lists processes
    "train",
]
NO_ORDER = 75  # the exit code of a process that was never told what to train


def run_job() -> None:
    """Be the command of a job: `sys.argv` has the file with id and request, as it was sent."""
    # What a file of variables says may count while modules are imported, so that is read first.
    ready = None if VARIABLE in os.environ else start(TRAIN, os.environ)
    from cluster.launchers.ray_job.runner import run

    sys.exit(run(Path(sys.argv[1]), ready))


def start(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a process that gets ready, and waits for its order on its standard input."""
    return subprocess.Popen(
        command,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def order(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """What `take_order` waits for.

    Args:
        words: a command line of transloom.
        folder: where it begins.
        environment: variables that it has besides.
    """
    return json.dumps(
        {"words": list(words), "folder": str(folder), "environment": dict(environment)}
    )


def take_order() -> None:
    """Wait for the order, and be where it begins, with its words; without one, leave."""
    if not (line := sys.stdin.readline()):
        sys.exit(NO_ORDER)
    told = json.loads(line)
    os.environ.update(told["environment"])
    os.chdir(told["folder"])
    sys.argv[1:] = told["words"]
