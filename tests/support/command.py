"""Run the command transloom like a user, and run programs in another Python."""

import os
import subprocess
import sys
from pathlib import Path

from support.cluster.processes import HANG_SECONDS

TRANSLOOM = Path(sys.executable).parent / "transloom"


def transloom(
    *arguments: object, cwd: Path, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end, with additional environment variables."""
    return run_command(TRANSLOOM, *arguments, cwd=cwd, **environment)


def run_python(
    program: str, *arguments: object, cwd: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a program in another Python to its end, with additional environment variables."""
    return run_command(sys.executable, "-c", program, *arguments, cwd=cwd, **environment)


def run_command(
    *command: object, cwd: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end, with additional environment variables."""
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def started_python(program: str, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
    """Start a program in another Python, whose input and output are pipes of text."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
