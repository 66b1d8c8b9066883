"""A job runner's view of its cluster, queried from the head without joining it.

Joining takes seconds and a Ray process; a query takes milliseconds.
"""

import time
from pathlib import Path

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_record import JobFolder
from cluster.launchers.ray_job.queue import NodeCapacity, QueuedJob
from cluster.ray import private
from cluster.ray.jobs import Job, dashboard_of, list_jobs

RUN_KEY = "run"  # in a job's metadata: the run's folder; only transloom's jobs have it
RUNNER_KEY = "runner"  # in a job's metadata: the job keeps a record in the run's folder
# Seconds after a job's start within which its runner should write its record.
RECORD_SECONDS = 60.0


class HeadClusterView:
    """The nodes of a cluster and its unfinished transloom jobs."""

    def __init__(self, head: str) -> None:
        """Prepare the queries.

        Args:
            head: HOST:PORT.
        """
        self._dashboard = dashboard_of(head)
        private.query_without_joining(head)

    def jobs(self) -> list[QueuedJob]:
        """Return all unfinished transloom jobs."""
        return [
            _queued(job)
            for job in list_jobs(self._dashboard)
            if not job.finished and RUNNER_KEY in job.metadata
        ]

    def nodes(self) -> list[NodeCapacity]:
        free, leaving = private.free_resources(), private.draining_nodes()
        return [
            NodeCapacity(free.get(node["NodeID"], {}), node["Resources"], node["Labels"])
            for node in private.known_nodes()
            if node["Alive"] and node["NodeID"] not in leaving
        ]


def state_without_record(job: Job) -> str:
    """Return the state of a transloom job whose record cannot be read: Ray's, or PENDING at first.

    For Ray, a job is running as soon as its runner starts, long before the run's ranks.
    """
    begins = time.time() - (job.started or 0.0) < RECORD_SECONDS
    return "PENDING" if begins and job.status == "RUNNING" else job.status


def _queued(job: Job) -> QueuedJob:
    submitted = job.started or 0.0
    try:
        record = JobFolder.of(Path(job.metadata[RUN_KEY]), job.id).read()
    except ClusterError:
        return QueuedJob(job.id, submitted, state_without_record(job))
    return QueuedJob(job.id, submitted, record.state, record.request.needs)
