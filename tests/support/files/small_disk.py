"""Run programs on a disk that gets full: a file system of some kilobytes, mounted for a child."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.machine_parts import missing

_ALONE = ["unshare", "--user", "--map-root-user", "--mount"]


def run_on_small_disk(disk: Path, kilobytes: int, program: str) -> Any:
    """Run a Python program with a disk of this size mounted at a folder.

    Return the JSON value that the program prints. The disk does not exist afterwards.
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
        # use a separate W&B service instead of the one of this process
        env={name: value for name, value in os.environ.items() if "SERVICE" not in name},
        timeout=180,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)
