"""State of a job, from Ray's information and from the record that its runner keeps.

This module does not import Ray, which takes seconds.
"""

import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_record import (
    FINAL,
    LOST,
    RUNNER_KEY,
    WAITING_STATES,
    JobFolder,
    JobRecord,
)
from cluster.ray.shares import CLAIM_KEY, RUN_KEY
from cluster.supervision.share_target import ShareTarget
from run_store.record.run_status import is_run, run_status_of
from run_store.record.run_status_model import RunStatus
from run_store.start import Claim

if TYPE_CHECKING:
    from cluster.ray.jobs import Job

# Seconds after a job's start within which its runner should write its record.
RECORD_SECONDS = 60.0


@dataclass(frozen=True)
class JobSummary:
    """The state of a job, from Ray and from the record of its runner.

    Attributes:
        job: Ray's information; None if only the run's folder was read.
        record: the record that the job's runner keeps; None if there is no record yet, or this
            machine cannot read it.
        lost: whether the job's processes have ended without recording the end of the job.
        folder: the folder of the job's record and log, as the nodes see it.
    """

    job: "Job | None"
    record: JobRecord | None
    lost: bool = False
    folder: Path | None = None

    @property
    def id(self) -> str:
        if self.record:
            return self.record.id
        return self.job.id if self.job else ""

    @property
    def status(self) -> str:
        """State: PENDING, WAITING, STARTING, RUNNING, SUCCEEDED, FAILED, STOPPED or LOST."""
        if self.lost:
            return LOST
        if self.record is None:
            if self.job and RUNNER_KEY in self.job.metadata:
                # For Ray, a job is running as soon as its runner starts, long before the ranks.
                begins = time.time() - (self.job.started or 0.0) < RECORD_SECONDS
                return "PENDING" if begins and self.job.status == "RUNNING" else self.job.status
            return self.job.status if self.job else LOST
        if self.job and self.job.finished and self.record.state not in FINAL:
            return self.job.status  # its runner was killed
        return self.record.state

    @property
    def finished(self) -> bool:
        return self.status in FINAL or self.status == LOST

    @property
    def waits(self) -> bool:
        """True if the job has not begun to train, so that there is nothing to save."""
        return self.status in WAITING_STATES

    @property
    def waits_for(self) -> str | None:
        """Resources that the job waits for; None if it does not wait."""
        return self.record.waits_for if self.record and not self.finished else None

    @property
    def message(self) -> str | None:
        if self.record:
            return self.record.message
        return self.job.message if self.job else None

    @property
    def run(self) -> str:
        if self.record:
            return self.record.request.run
        return self.job.metadata.get(RUN_KEY, "") if self.job else ""

    @property
    def exit_code(self) -> int | None:
        if self.record and self.record.exit_code is not None:
            return self.record.exit_code
        return self.job.exit_code if self.job else None

    @property
    def claim(self) -> Claim | None:
        """Owner, priority and tags of the job; None if they are unknown."""
        if self.record:
            return self.record.request.claim
        if self.job and CLAIM_KEY in self.job.metadata:
            with suppress(ValueError):  # any user of the cluster can write metadata
                return Claim.from_json(self.job.metadata[CLAIM_KEY].encode())
        return None

    @property
    def owner_text(self) -> str:
        """The job's owner, to follow its id in messages; empty if the owner is unknown."""
        return f" of {self.claim.owner}" if self.claim else ""

    @property
    def share(self) -> ShareTarget | None:
        """Number of ranks that the job should have; None before it begins and after its end."""
        return self.record.share if self.record and not self.finished else None

    def to_json(self) -> dict[str, Any]:
        known: dict[str, Any] = {"id": self.id, "status": self.status, "run": self.run}
        if self.job:
            known |= {name: value for name, value in asdict(self.job).items() if name not in known}
        known["exit_code"] = self.exit_code
        if self.claim:
            known |= {
                "owner": self.claim.owner,
                "priority": self.claim.priority,
                "tags": list(self.claim.tags),
            }
        if self.record:
            known |= {
                "waits_for": self.record.waits_for,
                "ranks": self.record.ranks,
                "share": self.record.share.model_dump() if self.record.share else None,
                "restarts": self.record.restarts,
                "attempts": [attempt.model_dump() for attempt in self.record.attempts],
                "log": str(self.folder / "log.txt") if self.folder else None,
                "message": self.message or known.get("message", ""),
            }
        return known


def status_with_job(path: Path) -> RunStatus:
    """Return the status of a run; its state is "waiting" if its newest job has yet to train it."""
    status = run_status_of(path)
    return status if status.state == "training" else with_job(status, newest_job_of(path))


def with_job(status: RunStatus, job: JobSummary | None) -> RunStatus:
    """Return the status, with the state "waiting" if a job has yet to train the run."""
    if job is None or job.finished or status.state == "training":
        return status
    if status.state == "finished" and job.status == "RUNNING":  # the job is about to end
        return status
    claim = job.claim or Claim()
    update = {
        "state": "waiting",
        "reason": job.waits_for or f"its job is {job.status.lower()}",
        "job_owner": claim.owner,
        "priority": claim.priority,
    }
    return status.model_copy(update=update)


def is_run_or_submitted(path: Path) -> bool:
    """Return whether a folder is a run, or contains the record of a job for a new run."""
    return is_run(path) or any((path / "jobs").glob("*/job.json"))


def newest_job_of(run: Path) -> JobSummary | None:
    """Return the newest job of a run without waiting; None if it has no readable record."""
    try:
        return recorded_job(JobFolder.newest_of(run))
    except (ClusterError, OSError):
        return None


def recorded_job(folder: JobFolder) -> JobSummary:
    """Return the state of a job according to its record.

    Raises:
        ClusterError, OSError: the record cannot be read.
    """
    record = folder.read()
    lost = record.state not in FINAL and folder.is_heartbeat_overdue(record)
    return JobSummary(None, record, lost, folder.path)
