"""Ask for the status of one job periodically, for `transloom watch`."""

from contextlib import suppress
from pathlib import Path

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_record import JobFolder
from cluster.launchers.ray_job.job_summary import JobSummary, recorded_job


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
        self._known = self._ask()
        if not self._known.run:
            raise ClusterError(
                f"{job_id} is no training job of transloom: run `transloom jobs list` to see the "
                "training jobs of the cluster"
            )
        self.run = Path(self._known.run)

    def poll(self) -> JobSummary:
        """Return the job's status from its job record; if that is not readable here, ask Ray."""
        with suppress(ClusterError):
            job = recorded_job(JobFolder.of(self.run, self._id))
            if not job.lost:
                return job
        with suppress(ClusterError):  # the head node may be unavailable for a moment
            self._known = self._ask()
        return self._known

    def _ask(self) -> JobSummary:
        # This module imports Ray, which takes seconds.
        from cluster.launchers.ray_job.status import job_summary_of

        return job_summary_of(self._address, self._id)
