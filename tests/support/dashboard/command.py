"""`transloom dashboard` as its users start it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRANSLOOM = Path(sys.executable).parent / "transloom"


@contextmanager
def dashboard(folder: Path, cache: Path, *options: str) -> Iterator[str]:
    """The dashboard of a folder; gives the address that it prints, token included."""
    process = subprocess.Popen(
        [str(TRANSLOOM), "dashboard", str(folder), *options],
        stdout=subprocess.PIPE,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONUNBUFFERED": "1"},
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://\S+", line):
                yield found[0]
                return
        raise AssertionError(f"it ended with {process.wait()} and printed no address")
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
