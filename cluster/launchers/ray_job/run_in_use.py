"""Refuse to submit a run that somebody trains, or that a job waits to train.

The run's folder tells, where it is visible here, and so do the jobs of the cluster. The run's lease
still decides on the node: somebody may come in between, or train where none of this is seen.
"""

from contextlib import suppress
from pathlib import Path

from cluster.errors import ClusterError
from cluster.launchers.ray_job.inside_view import RUN_KEY, RUNNER_KEY
from cluster.launchers.ray_job.record import FINAL, JobFolder
from cluster.launchers.ray_job.status import standing_of
from cluster.ray import jobs
from trainer.record.standing import BYTES_IN_A_LIST, is_run
from trainer.record.standing import standing_of as standing_of_run

_OTHERWISE = "The same command continues the run then. Or train another run with --run PATH"


def check_jobs(address: str, run: str) -> None:
    """Check that no job of a cluster trains a run or waits to.

    Raises:
        ClusterError: one does; the message has the command that stops it.
    """
    for job in jobs.list_jobs(address):
        if job.finished or RUNNER_KEY not in job.metadata:
            continue
        if Path(job.metadata.get(RUN_KEY, "")) != Path(run):
            continue
        found = standing_of(address, job.id)  # its record tells of its end before Ray does
        if not found.finished:
            raise ClusterError(
                f"The run {run} is in use by the job {job.id} ({found.status}). Stop it with a "
                f"checkpoint by `transloom jobs stop {job.id} --address {address}`. {_OTHERWISE}"
            )


def check_folder(run: Path) -> None:
    """Check that nobody trains the run in a folder, as far as that is visible here.

    Raises:
        ClusterError: somebody does; the message has the command that stops the run.
    """
    if not is_run(run):
        return
    found = standing_of_run(run, BYTES_IN_A_LIST)
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
