"""Read the status of one job without waiting, from the run's folder or from Ray.

`transloom watch` shows this status.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_record import FINAL, LOST, JobFolder, JobRecord
from trainer.record.run_status_model import RunStatus
from transloom.observe.terminal.time_format import clock

if TYPE_CHECKING:
    from cluster.launchers.ray_job.status import JobSummary


@dataclass(frozen=True)
class JobSnapshot:
    """Status of the job that trains a run.

    Attributes:
        state: the state in lower case.
        is_under_way: True if the job may still train the run.
        waits_for: the resources that the job waits for; None if it does not wait.
        restarts: one text for each restart, oldest first.
    """

    id: str
    state: str
    is_under_way: bool
    waits_for: str | None = None
    message: str | None = None
    restarts: tuple[str, ...] = ()


def state_with_job(run_status: RunStatus, job: JobSnapshot | None) -> str:
    """Return the state of a run, or its job's state while the run waits for the job."""
    if run_status.state != "training" and job and job.is_under_way:
        return job.state
    return run_status.state


def newest_job_of(run: Path) -> JobSnapshot | None:
    """Return the status of a run's newest job; None if the run has no readable job record."""
    try:
        folder = JobFolder.newest_of(run)
        record = folder.read()
    except (ClusterError, OSError):
        return None
    state = (
        LOST if record.state not in FINAL and folder.is_heartbeat_overdue(record) else record.state
    )
    return _of_record(record.id, state, record)


class ClusterJobPoller:
    """Poller of the status of one job.

    Attributes:
        run: the path of the run's folder on the cluster's nodes.
    """

    def __init__(self, address: str, job_id: str) -> None:
        """Request the status of the job once.

        Raises:
            ClusterError: the cluster cannot be reached, refuses the token, or knows no such job.
        """
        self._address, self._id = address, job_id
        self._standing = self._ask()
        if not self._standing.run:
            raise ClusterError(
                f"{job_id} is no training job of transloom: run `transloom jobs list` to see the "
                "training jobs of the cluster"
            )
        self.run = Path(self._standing.run)

    def poll(self) -> JobSnapshot:
        """Return the job's status from its job record; if that is not readable here, ask Ray."""
        folder = JobFolder.of(self.run, self._id)
        with suppress(ClusterError):
            record = folder.read()
            if record.state in FINAL or not folder.is_heartbeat_overdue(record):
                return _of_record(record.id, record.state, record)
        with suppress(ClusterError):  # the head node may be unavailable for a moment
            self._standing = self._ask()
        return _of_summary(self._standing)

    def _ask(self) -> "JobSummary":
        # This module imports Ray, which takes seconds.
        from cluster.launchers.ray_job.status import job_summary_of

        return job_summary_of(self._address, self._id)


def _of_summary(standing: "JobSummary") -> JobSnapshot:
    if standing.record:
        return _of_record(standing.id, standing.status, standing.record)
    message = standing.job.message if standing.job else None
    return JobSnapshot(standing.id, standing.status.lower(), not standing.finished, message=message)


def _of_record(job_id: str, state: str, record: JobRecord) -> JobSnapshot:
    is_under_way = state not in FINAL and state != LOST
    return JobSnapshot(
        id=job_id,
        state=state.lower(),
        is_under_way=is_under_way,
        waits_for=record.waits_for if is_under_way else None,
        message=record.message,
        restarts=tuple(
            f"{clock(one.ended or one.started)}  the job's command was restarted after "
            f"{one.end_text}: {one.why}"
            for one in record.attempts[:-1]
        ),
    )
