"""`transloom serve` as a separate process."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from transloom.cli.sweep_runs import TRANSLOOM


class Serving(NamedTuple):
    """Server process, and the run that it serves."""

    process: "subprocess.Popen[str]"
    address: str
    run: Path | str

    def replicas(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


@contextmanager
def served(run: Path | str, *options: str) -> Iterator[Serving]:
    """Start the server of a run's folder or URL, yield it, and end it afterwards."""
    with subprocess.Popen(
        [*TRANSLOOM, "serve", run, *options, "--timeout-seconds", "240"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = []
        address = None
        try:
            while not address:
                said.append(process.stdout.readline())
                assert said[-1], said
                address = re.search(r"Serving \S+: (http://127\.0\.0\.1:\d+)$", said[-1])
            yield Serving(process, address[1], run)
        finally:
            process.kill()
