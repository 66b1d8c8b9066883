"""Checks before a job is submitted: the head node can run it, and no other process uses its run.

The head node is checked by the results of `cluster.ray.head_probe`. Other nodes may lack more,
which only the job itself reports.

Processes that use the run are found through the run's folder, if that is visible from here, and
among the jobs of the cluster. These checks can miss a job that starts after them or trains on
another cluster. The run's lease then refuses one of the jobs on its node.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cluster.errors import ClusterError
from cluster.launchers.ray_job.head_cluster_view import RUN_KEY, RUNNER_KEY
from cluster.launchers.ray_job.job_record import FINAL, JobFolder, JobRequest
from cluster.launchers.ray_job.status import job_summary_of
from cluster.planning.node_probe import version_of
from cluster.planning.versions import CHECKED_PACKAGES
from cluster.ray import jobs
from cluster.ray.exposure import HeadProbe
from trainer.record.run_status import RECORD_BYTES_IN_LIST, is_run, run_status_of

PYTHONS = ((3, 11), (3, 13))  # the first and the last supported version
_OTHERWISE = "The same command continues the run then. Or train another run with --run PATH"


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
            f"{head} runs Ray with Python {seen.python}, and transloom needs {first} to {last}: "
            "start its Ray from such an environment"
        )
    if missing := [name for name in CHECKED_PACKAGES if seen.versions.get(name) is None]:
        raise ClusterError(
            f"{head} has no {' and no '.join(missing)} in the environment of its Ray: install "
            "transloom's requirements there, from the same lock file; see docs/clusters.md"
        )
    if not any(seen.folders.values()):
        raise ClusterError(request.missing_folders_text(head))
    for folder in (request.run, str(Path(request.run).parent)):
        if problem := seen.unwritable.get(folder):
            raise ClusterError(
                f"{head} cannot write the run's folder {request.run}: {problem}. Name another "
                "folder with --run PATH, on storage that all nodes may write"
            )
    for name in CHECKED_PACKAGES:
        here, there = version_of(name), seen.versions[name]
        if here != there:
            notice(
                f"{head} has {name} {there}, this machine {here or 'none'}: the run uses "
                "the nodes' version"
            )


def check_jobs(address: str, run: str) -> None:
    """Check that no job of a cluster trains a run, or waits to train it.

    Raises:
        ClusterError: a job does; the message has the command that stops it.
    """
    for job in jobs.list_jobs(address):
        if job.finished or RUNNER_KEY not in job.metadata:
            continue
        if Path(job.metadata.get(RUN_KEY, "")) != Path(run):
            continue
        found = job_summary_of(address, job.id)  # shows the end before Ray does
        if not found.finished:
            raise ClusterError(
                f"The run {run} is in use by the job {job.id} ({found.status}). Stop it with a "
                f"checkpoint by `transloom jobs stop {job.id} --address {address}`. {_OTHERWISE}"
            )


def check_folder(run: Path) -> None:
    """Check that no process trains the run in a folder, as far as that is visible from here.

    Raises:
        ClusterError: a process does; the message has the command that stops the run.
    """
    if not is_run(run):
        return
    found = run_status_of(run, RECORD_BYTES_IN_LIST)
    if found.state != "training" or found.owner is None:
        return
    owner, job, stop = found.owner, "", f"transloom stop {run}"
    with suppress(ClusterError):
        record = JobFolder.newest_of(run).read()
        if record.state not in FINAL:
            job, stop = f"the job {record.id}, ", f"transloom jobs stop {run}"
    raise ClusterError(
        f"The run {run} is in use by {job}process {owner.process} on {owner.host} (since "
        f"{owner.since}). Stop it with a checkpoint by `{stop}`. {_OTHERWISE}"
    )


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
