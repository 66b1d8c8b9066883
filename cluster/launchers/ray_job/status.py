"""Status of jobs, from Ray's information and from the records that their runners keep."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError
from cluster.launchers.ray_job.head_cluster_view import RUN_KEY, RUNNER_KEY, state_without_record
from cluster.launchers.ray_job.job_record import FINAL, LOST, JobFolder, JobRecord, parse_record
from cluster.launchers.ray_job.job_unpacking import record_link
from cluster.launchers.ray_job.queue import WAITING_STATES
from cluster.ray import jobs
from cluster.ray.jobs import Job
from foundation.errors import DataError
from trainer.errors import TrainerError
from trainer.runs.run_url import is_run_url

READERS = 8
POLL_SECONDS = 0.5
VIEW_SECONDS = 5.0
FOLLOW_BYTES = 65_536


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

    job: Job | None
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
        """PENDING, WAITING, STARTING, RUNNING, SUCCEEDED, FAILED, STOPPED or LOST."""
        if self.lost:
            return LOST
        if self.record is None:
            if self.job and RUNNER_KEY in self.job.metadata:
                return state_without_record(self.job)
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
    def run(self) -> str:
        if self.record:
            return self.record.request.run
        return self.job.metadata.get(RUN_KEY, "") if self.job else ""

    @property
    def exit_code(self) -> int | None:
        if self.record and self.record.exit_code is not None:
            return self.record.exit_code
        return self.job.exit_code if self.job else None

    def to_json(self) -> dict[str, Any]:
        known: dict[str, Any] = {"id": self.id, "status": self.status, "run": self.run}
        if self.job:
            known |= {name: value for name, value in asdict(self.job).items() if name not in known}
        known["exit_code"] = self.exit_code
        if self.record:
            known |= {
                "waits_for": self.record.waits_for,
                "restarts": self.record.restarts,
                "attempts": [attempt.model_dump() for attempt in self.record.attempts],
                "log": str(self.folder / "log.txt") if self.folder else None,
                "message": self.record.message or known.get("message", ""),
            }
        return known


def is_folder(name: str) -> bool:
    """Return whether a user's argument names a run's folder, rather than a job's id."""
    return "/" in name or Path(name).is_dir()


def job_summary_in(folder: str) -> JobSummary:
    """Return the status of the last job of a run, or of one job.

    Args:
        folder: the folder of the run, or of the job.
    """
    path = _local_folder(folder)
    job = JobFolder(path) if (path / "job.json").is_file() else JobFolder.newest_of(path)
    lost = job.is_lost()
    record = job.read()  # read after the check, during which the job may end
    return JobSummary(None, record, lost and record.state not in FINAL, job.path)


def _local_folder(folder: str) -> Path:
    """Return a folder, or a local copy of a run in an object store."""
    if not is_run_url(folder):
        return Path(folder)
    from trainer.runs.remote.pull import run_view  # imports obstore

    return run_view(folder)


def job_summary_of(address: str, job_id: str) -> JobSummary:
    """Return the status of a job of a cluster, by the job's id.

    Raises:
        ClusterError: the cluster cannot be reached, refuses the token, or knows no such job.
    """
    return _with_record(address, jobs.job_status(address, job_id))


def all_job_summaries(address: str) -> list[JobSummary]:
    """Return the status of each job of a cluster, oldest first."""
    with ThreadPoolExecutor(READERS) as readers:
        found = jobs.list_jobs(address)
        return list(readers.map(lambda job: _with_record(address, job), found))


def _with_record(address: str, job: Job) -> JobSummary:
    if RUNNER_KEY not in job.metadata or job.node is None:
        return JobSummary(job, None)
    data = None
    with suppress(ClusterError):
        data = jobs.file_next_to_logs(address, job.node, record_link(job.id))
    with suppress(ClusterError, TrainerError, DataError):  # damaged, or with the URL of no run
        if data:
            record = parse_record(data, record_link(job.id))
            return JobSummary(
                job, record, folder=JobFolder.of(record.request.run_folder.path, job.id).path
            )
    return JobSummary(job, None)


def log_of(address: str, job_id: str, *, follow: bool, lines: int | None) -> Iterator[str]:
    """Yield the output of a job in chunks; with `follow`, until the job has finished.

    Args:
        lines: number of last lines to begin with; None yields all lines.
    """
    if lines is None:
        yield from jobs.job_logs(address, job_id, follow=follow)
        return
    text = "".join(jobs.job_logs(address, job_id))
    yield _last(text, lines)
    if follow:
        skip = len(text)
        for piece in jobs.job_logs(address, job_id, follow=True):
            yield piece[skip:]
            skip = max(0, skip - len(piece))


def log_in(folder: str, *, follow: bool, lines: int | None) -> Iterator[str]:
    """Yield the output of a job in chunks, from a file in the run's folder.

    Args:
        folder: the folder of the run, or of the job.
        follow: continue until the job has finished.
        lines: number of last lines to begin with; None yields all lines.
    """
    summary = job_summary_in(folder)
    assert summary.folder is not None
    try:
        with (summary.folder / "log.txt").open(encoding="utf-8", errors="replace") as file:
            text = file.read()
            yield text if lines is None else _last(text, lines)
            while follow:
                _local_folder(folder)  # refreshes a copy
                ended = job_summary_in(str(summary.folder)).finished
                while piece := file.read(FOLLOW_BYTES):
                    yield piece
                if ended:
                    return
                time.sleep(VIEW_SECONDS if is_run_url(folder) else POLL_SECONDS)
    except OSError as error:
        raise ClusterError(f"{error.filename} cannot be read: {error.strerror}") from error


def wait_until_over(address: str, job_id: str) -> JobSummary:
    """Wait until Ray reports that a job has finished."""
    jobs.wait_for_job(address, job_id)
    return job_summary_of(address, job_id)


def _last(text: str, lines: int) -> str:
    return "".join(text.splitlines(keepends=True)[-lines:]) if lines else ""
