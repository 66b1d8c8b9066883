"""A job runner's view of its cluster, queried from the head without joining it.

Joining takes seconds and a Ray process; a query takes milliseconds.
"""

import grpc  # type: ignore[import-untyped]

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_record import FINAL, RUNNER_KEY, WAITING_STATES, JobFolder
from cluster.ray import private
from cluster.ray.cluster_shares import query_shares
from cluster.ray.jobs import Job, dashboard_of, newest_stop_order
from cluster.ray.shares import RUN_KEY, ClusterSnapshot
from foundation.errors import DataError
from run_store.errors import RunError
from run_store.folder import RunFolder
from run_store.start import StopOrder

# Timeout of a check that the head answers. Without the check, Ray's client would block for a
# minute and then end this process.
HEAD_SECONDS = 10.0


class HeadClusterView:
    """The nodes of a cluster and its unfinished transloom jobs."""

    def __init__(self, head: str) -> None:
        """Prepare the queries.

        Args:
            head: HOST:PORT.
        """
        self._head = head
        self._dashboard = dashboard_of(head)
        private.query_without_joining(head)

    def snapshot(self) -> ClusterSnapshot:
        try:
            private.ask_head(self._head, HEAD_SECONDS)
        except grpc.RpcError as error:
            raise ClusterError(f"Ray's head at {self._head} does not answer: {error}") from error
        return query_shares(self._dashboard, has_begun)

    def stop_order(self, job_id: str) -> StopOrder | None:
        return newest_stop_order(self._dashboard, job_id)


def has_begun(job: Job) -> bool:
    """Return whether a job has begun to train and has not ended, according to its record."""
    if RUNNER_KEY not in job.metadata:
        return False
    try:
        folder = RunFolder.of(job.metadata[RUN_KEY]).path
        return JobFolder.of(folder, job.id).read().state not in WAITING_STATES | FINAL
    except (ClusterError, DataError, RunError, KeyError):
        return False
