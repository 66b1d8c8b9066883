"""A job runner's view of its cluster, queried from the head without joining it.

Joining takes seconds and a Ray process; a query takes milliseconds.
"""

from pathlib import Path

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_record import RUN_KEY, RUNNER_KEY, JobFolder
from cluster.launchers.ray_job.job_summary import JobSummary
from cluster.launchers.ray_job.queue import NodeCapacity, QueuedJob
from cluster.ray import private
from cluster.ray.jobs import Job, dashboard_of, list_jobs


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


def _queued(job: Job) -> QueuedJob:
    submitted = job.started or 0.0
    try:
        record = JobFolder.of(Path(job.metadata[RUN_KEY]), job.id).read()
    except ClusterError:
        return QueuedJob(job.id, submitted, JobSummary(job, None).status)
    return QueuedJob(job.id, submitted, record.state, record.request.needs)
