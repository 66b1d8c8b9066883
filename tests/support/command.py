"""The command transloom, run as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

from support.cluster.processes import HANG_SECONDS

TRANSLOOM = Path(sys.executable).parent / "transloom"


def transloom(
    *arguments: object, cwd: Path, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Runs it to its end, with more variables in its environment."""
    return subprocess.run(
        [str(TRANSLOOM), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
