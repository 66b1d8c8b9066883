"""Check before submission that the head node can run a job, and that its run is not in use.

The results of `cluster.ray.head_probe` show whether the head node can run the job. Only the job
itself can report problems of other nodes.

The run's folder, if this machine sees it, and the jobs of the cluster show which processes use the
run. These checks can miss a job that starts later or trains on another cluster. In that case, the
run's lease refuses one of the two jobs when it starts.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_record import FINAL, RUNNER_KEY, JobFolder, JobRequest
from cluster.launchers.ray_job.job_summary import JobSummary
from cluster.launchers.ray_job.status import job_summary_of
from cluster.planning.versions import CHECKED_PACKAGES, version_of
from cluster.ray import jobs
from cluster.ray.exposure import HeadProbe
from cluster.ray.shares import RUN_KEY
from run_store.record.run_status import is_run, run_status_of

PYTHONS = ((3, 11), (3, 13))  # the first and the last supported version
_OTHERWISE = "Then the same command continues the run. To train another run, use --run PATH"


def check_head(
    seen: HeadProbe, request: JobRequest, address: str, notice: Callable[[str], None]
) -> None:
    """Check that the head node can run a job, as far as its probe shows.

    Args:
        notice: called with a message for each version that differs from this machine's.

    Raises:
        ClusterError: the head node cannot run the job.
    """
    head = f"The head node of {address}"
    if seen.python is None:  # the probe failed
        return
    if not PYTHONS[0] <= _minor(seen.python) <= PYTHONS[1]:
        first, last = (".".join(map(str, version)) for version in PYTHONS)
        raise ClusterError(
            f"{head} runs Ray with Python {seen.python}, but transloom needs {first} to {last}. "
            "Start Ray there from an environment with one of these Python versions"
        )
    if missing := [name for name in CHECKED_PACKAGES if seen.versions.get(name) is None]:
        raise ClusterError(
            f"{head} has no {' and no '.join(missing)} in the environment of its Ray. Install "
            "transloom's requirements there from the same lock file, as in docs/how-to/install.md"
        )
    if request.required_folders and not any(seen.folders.values()):
        raise ClusterError(request.missing_folders_text(head))
    for folder in request.required_folders[:2]:
        if problem := seen.unwritable.get(folder):
            raise ClusterError(
                f"{head} cannot write the run's folder {request.run}: {problem}. Name another "
                "folder with --run PATH, on storage that all nodes can write to"
            )
    for name in CHECKED_PACKAGES:
        here, there = version_of(name), seen.versions[name]
        if here != there:
            notice(
                f"{head} has {name} {there}, but this machine has {here or 'none'}. The run uses "
                "the nodes' version"
            )


def check_jobs(address: str, run: str) -> None:
    """Check that no job of a cluster trains a run, or waits to train it.

    Raises:
        ClusterError: a job uses the run; the message has the command that stops the job.
    """
    for job in jobs.list_jobs(address):
        if job.finished or RUNNER_KEY not in job.metadata:
            continue
        if job.metadata.get(RUN_KEY, "").rstrip("/") != run.rstrip("/"):
            continue
        found = job_summary_of(address, job.id)  # shows a job's end earlier than Ray
        if not found.finished:
            raise ClusterError(
                f"The run {run} is in use by the job {job.id}{found.owner_text} ({found.status}). "
                "To stop it with a checkpoint, run `transloom jobs stop "
                f"{job.id} --address {address}`. "
                f"{_OTHERWISE}"
            )


def check_folder(run: Path) -> None:
    """Check that no process trains the run in a folder, as far as this machine can see.

    Raises:
        ClusterError: a process trains the run; the message has the command that stops the run.
    """
    if not is_run(run):
        return
    found = run_status_of(run)
    if found.state != "training" or found.owner is None:
        return
    owner, job, stop = found.owner, "", f"transloom stop {run}"
    with suppress(ClusterError):
        record = JobFolder.newest_of(run).read()
        if record.state not in FINAL:
            person = JobSummary(None, record).owner_text
            job, stop = f"the job {record.id}{person}, ", f"transloom jobs stop {run}"
    raise ClusterError(
        f"The run {run} is in use by {job}process {owner.process} on {owner.host} (since "
        f"{owner.since}). To stop it with a checkpoint, run `{stop}`. {_OTHERWISE}"
    )


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
