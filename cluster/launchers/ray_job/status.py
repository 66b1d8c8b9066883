"""Status of jobs, from Ray's information and from the records that their runners keep."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_record import FINAL, RUNNER_KEY, JobFolder, parse_record
from cluster.launchers.ray_job.job_summary import JobSummary
from cluster.launchers.ray_job.job_unpacking import record_link
from cluster.ray import jobs
from cluster.ray.jobs import Job
from foundation.errors import DataError
from run_store.errors import RunError
from run_store.remote.local_copy import local_copy
from run_store.run_url import is_run_url

READERS = 8
POLL_SECONDS = 0.5
VIEW_SECONDS = 5.0
FOLLOW_BYTES = 65_536


def is_folder(name: str) -> bool:
    """Return whether a user's argument names a run's folder, rather than a job's id."""
    return "/" in name or Path(name).is_dir()


def job_summary_in(folder: str) -> JobSummary:
    """Return the status of the last job of a run, or of one job.

    Args:
        folder: the folder of the run, or of the job.
    """
    path = local_copy(folder)
    job = JobFolder(path) if (path / "job.json").is_file() else JobFolder.newest_of(path)
    lost = job.is_lost()
    record = job.read()  # read after the check, during which the job may end
    return JobSummary(None, record, lost and record.state not in FINAL, job.path)


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
    with suppress(ClusterError, RunError, DataError):  # damaged, or with an invalid URL
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
                local_copy(folder)  # refreshes the copy of a run in an object store
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
