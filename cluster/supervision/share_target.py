"""Number of ranks that a job should have: a file that its runner writes and its driver follows.

    runner: jobs and nodes ──▶ share.json in the job's folder ──▶ driver: gives ranks down to it
            of the cluster                                                or takes free ranks

A run without a job has no such file. It has as many ranks as fit, up to its largest number.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cluster.config import ClusterConfig
from cluster.supervision.interval import Interval
from cluster.supervision.invocation import JOB_VARIABLE
from data_pipeline.storage.regular_files import read_regular
from foundation.file_model import SMALL, Count, FileModel

READ_SECONDS = 0.5
MAX_CHARACTERS = 500


class ShareTarget(FileModel):
    """Content of share.json.

    Attributes:
        ranks: number of ranks that the job should have.
        grows_at_once: whether to take free ranks at once, without a check that they stay free.
        reason: why the number last changed, as a clause that names jobs and owners.
    """

    ranks: Count
    grows_at_once: bool = False
    reason: Annotated[str, Field(max_length=MAX_CHARACTERS)] = ""


def share_file(run: Path, job_id: str) -> Path:
    """Return the path of a job's share.json."""
    return run / "jobs" / job_id / "share.json"


class FollowedTarget:
    """The current target of this process's job, or None for a run without a job."""

    def __init__(self, run: Path, config: ClusterConfig) -> None:
        job = os.environ.get(JOB_VARIABLE)
        self._file = share_file(run, job) if job else None
        self._config = config
        self._reads = Interval(READ_SECONDS)
        self._target: ShareTarget | None = None

    @property
    def target(self) -> ShareTarget | None:
        if self._file and self._reads.has_passed(time.monotonic()):
            with suppress(OSError, ValueError):  # unreadable for a moment, or by another version
                self._target = ShareTarget.from_json(read_regular(self._file, SMALL.bytes))
        return self._target

    @property
    def max_ranks(self) -> int:
        """Largest number of ranks that the run may have now, at least its smallest number."""
        least, most = self._config.min_ranks, self._config.max_ranks
        return min(most, max(least, self.target.ranks)) if self.target else most
