"""`transloom dashboard` as its users start it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.support.trainings import TRANSLOOM, serving


@contextmanager
def dashboard(folder: Path, cache: Path, *options: str) -> Iterator[str]:
    """The dashboard of a folder; gives the address that it prints, token included."""
    command = [TRANSLOOM, "dashboard", str(folder), *options]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONUNBUFFERED": "1"}
    with serving(command, r"http://\S+", environment) as (_, found):
        yield found[0]
