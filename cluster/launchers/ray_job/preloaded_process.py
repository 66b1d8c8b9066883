"""The training process of a job, which imports its modules first and reads its arguments later.

::

    python -c …      imports the entry point, waits for its arguments, runs `transloom train`

Importing takes seconds, which the process spends while the job waits for capacity. The client names
the entry point: the module of the command line, which has a function `main`. This package therefore
does not import the command line itself.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Code that puts our packages first on the path, before directories with packages of the same names.
# With -P, Python imports nothing from the directory in which a process starts.
IMPORT_OWN_PACKAGES = "from cluster.packages import import_own_packages; import_own_packages(); "
NO_ARGV = 75  # exit code of a process that received no arguments


def training_command(entry_point: str) -> list[str]:
    """Return the command that imports a module, waits for its arguments and calls its `main`."""
    return [
        sys.executable,
        "-P",
        "-c",
        f"{IMPORT_OWN_PACKAGES}from {entry_point} import main; "
        f"from {__name__} import read_argv; read_argv(); main()",
        "transloom",  # the name in process lists
        "train",
    ]


def start(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a process that imports its modules, then waits for its arguments on standard input."""
    return subprocess.Popen(
        command,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def argv_line(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Return the line that `read_argv` waits for.

    Args:
        words: the command line of transloom, without the program.
        folder: the working directory of the command.
        environment: additional environment variables.
    """
    return json.dumps(
        {"words": list(words), "folder": str(folder), "environment": dict(environment)}
    )


def read_argv() -> None:
    """Wait for a line of arguments and apply it; exit if standard input ends without one.

    The line sets the command line, the working directory and environment variables; see
    `argv_line`.
    """
    if not (line := sys.stdin.readline()):
        sys.exit(NO_ARGV)
    told = json.loads(line)
    os.environ.update(told["environment"])
    os.chdir(told["folder"])
    sys.argv[1:] = told["words"]
