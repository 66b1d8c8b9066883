"""A run that somebody trains is refused before another job is queued for it.

By the jobs of a cluster: tests/integration/test_jobs.py.
"""

from pathlib import Path

import pytest
from support.launchers.job_records import a_record
from support.records.lines import train_line
from support.records.run_folders import made_run, with_owner

from cluster.errors import ClusterError
from cluster.launchers.ray_job.record import JobFolder
from cluster.launchers.ray_job.run_in_use import check_folder


def test_a_run_that_somebody_trains_is_refused_with_the_command_that_stops_it(
    tmp_path: Path,
) -> None:
    run = made_run(tmp_path / "run", train_line(7))
    check_folder(tmp_path / "new")
    check_folder(run)
    with_owner(run, host="far", process=77, place="elsewhere")
    with pytest.raises(ClusterError, match=f"process 77 on far .* `transloom stop {run}`"):
        check_folder(run)
    job = JobFolder.of(run, "mine")
    job.path.mkdir(parents=True)
    job.write(a_record(run))
    with pytest.raises(
        ClusterError, match=f"the job mine, process 77 on far .* `transloom jobs stop {run}`"
    ):
        check_folder(run)
    with_owner(run, host="far", process=77, place="elsewhere", silent_seconds=100)
    check_folder(run)
