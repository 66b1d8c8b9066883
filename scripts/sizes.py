"""Print the download size and the disk space of an installation before it starts.

scripts/sizes.py LOCK FOLDER    make setup with a lock, cpu or cuda, into a folder
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import NamedTuple

GB = 10**9


class Size(NamedTuple):
    """Sizes of an installation in GB."""

    download: float
    disk: float

    def __str__(self) -> str:
        return f"{self.download:g} GB to download, {self.disk:g} GB on disk"


# With Python 3.11 on x86_64: measured for cpu, computed from the files of the lock for cuda.
# tests/scripts/test_sizes.py compares an environment with them.
SETUP = {"cpu": Size(0.7, 2.6), "cuda": Size(3.3, 6.7)}
WHEEL = {"cpu": Size(0.4, 1.4), "cuda": Size(2.9, 5.4)}


def disk_usage(folder: Path) -> int:
    """Return the bytes of all files in a folder; a file with several links counts once."""
    states = (Path(path, name).lstat() for path, _, names in os.walk(folder) for name in names)
    return sum({state.st_ino: state.st_size for state in states}.values())


def setup_lines(lock: str, folder: Path) -> list[str]:
    """Return the sizes that `make setup` needs, and the space that the disk lacks."""
    size = SETUP[lock]
    lines = [f"  The lock {lock}: {size}. pip's cache takes the size of the download, too."]
    free = shutil.disk_usage(folder).free
    needed = size.disk * GB - disk_usage(folder)
    if free < needed:
        lines.append(
            f"  Only {free / GB:.1f} GB are free in {folder.resolve()}, and {needed / GB:.1f} GB "
            "are needed. Free disk space, or move the project to another disk."
        )
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lock", choices=SETUP)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    print("\n".join(setup_lines(arguments.lock, arguments.folder)), flush=True)
