"""Run cases in processes that may die of them, and keep the files of findings.

A finding's file has the name of its target, a dash and a hash. After the repair, the file stays
in tests/fuzz/crashes, whose files are read again in every `make test-long`.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[2]
CRASHES = TESTS / "fuzz" / "crashes"
READ, REFUSED = "read", "refused"


class Job(NamedTuple):
    """Case to read: one that its target makes, or the content of a file."""

    target: str
    number: int = 0
    file: str | None = None

    @classmethod
    def kept(cls) -> list["Job"]:
        """The cases that were found once."""
        names = sorted(path for path in CRASHES.iterdir() if path.suffix != ".md")
        return [cls(path.name.rpartition("-")[0], file=str(path)) for path in names]


def run(jobs: Sequence[Job]) -> Iterator[tuple[Job, str]]:
    """Yield each job with its outcome: `read`, `refused`, or the finding."""
    left = list(jobs)
    while left:
        done, died_of = _run_until_death(left)
        yield from zip(left, done, strict=False)
        left = left[len(done) :]
        if died_of:
            yield left.pop(0), died_of


def _run_until_death(jobs: Sequence[Job]) -> tuple[list[str], str]:
    """The outcomes until the process died, and how; "" if it read all."""
    result = subprocess.run(
        [sys.executable, "-m", "support.fuzz.cases"],
        input="\n".join(map(json.dumps, jobs)),
        cwd=TESTS,
        env=os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    done = [json.loads(line) for line in result.stdout.splitlines() if line.startswith('"')]
    if len(done) == len(jobs):
        return done, ""
    last = (result.stderr.strip().splitlines() or [""])[-1]
    return done, f"the process ended with {result.returncode}: {last[-100:]}"


def keep(target: str, data: bytes, folder: Path) -> Path:
    """Writes a finding's file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path
