"""Programs on a disk that gets full: a real file system of a few kilobytes, mounted for a child."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.machine_parts import missing

_ALONE = ["unshare", "--user", "--map-root-user", "--mount"]


def run_on_small_disk(disk: Path, kilobytes: int, program: str) -> Any:
    """Run a Python program for which a disk of that size is mounted at a folder.

    The program prints one JSON value, which is returned; the disk is gone afterwards.
    """
    disk.mkdir()
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs {disk}"
    if subprocess.run([*_ALONE, "sh", "-c", mount], capture_output=True, check=False).returncode:
        missing("this machine lets no tests mount a file system")
    program = f"import sys\nsys.path[:0] = {sys.path!r}\n{program}"
    child = subprocess.run(
        [*_ALONE, "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, program],
        capture_output=True,
        text=True,
        # A separate W&B service, not the one of this process.
        env={name: value for name, value in os.environ.items() if "SERVICE" not in name},
        timeout=180,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)
