"""Run `transloom dashboard` like a user."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.support.trainings import TRANSLOOM, serving


@contextmanager
def dashboard(folder: Path, cache: Path, *options: str) -> Iterator[str]:
    """Run the dashboard of a folder, and yield the address that it prints, with the token."""
    command = [TRANSLOOM, "dashboard", str(folder), *options]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONUNBUFFERED": "1"}
    with serving(command, r"http://\S+", environment) as (_, found):
        yield found[0]
