"""A run that somebody trains is refused before another job is queued for it.

By the jobs of a real cluster: tests/integration/test_jobs.py.
"""

from pathlib import Path

import pytest
from support.launchers.job_records import a_record
from support.records.lines import train_line
from support.records.run_folders import made_run, with_owner

from cluster.errors import ClusterError
from cluster.launchers.ray_job import run_in_use
from cluster.launchers.ray_job.inside_view import RUN_KEY, RUNNER_KEY
from cluster.launchers.ray_job.record import JobFolder
from cluster.launchers.ray_job.run_in_use import check_folder, check_jobs
from cluster.launchers.ray_job.status import JobSummary
from cluster.ray.jobs import Job


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


@pytest.mark.parametrize(
    ("ray_says", "record_says", "run", "in_use"),
    [
        ("RUNNING", "RUNNING", "/runs/a", True),
        ("RUNNING", None, "/runs/a/", True),  # its runner has not begun
        ("PENDING", "WAITING", "/runs/a", True),
        ("RUNNING", "SUCCEEDED", "/runs/a", False),  # Ray learns of the end a moment later
        ("FAILED", "RUNNING", "/runs/a", False),  # its runner was killed
        ("RUNNING", "RUNNING", "/runs/b", False),
    ],
)
def test_a_job_that_has_ended_by_ray_or_by_its_record_holds_no_run(
    monkeypatch: pytest.MonkeyPatch, ray_says: str, record_says: str | None, run: str, in_use: bool
) -> None:
    """These moments are too short to be met on a real cluster."""
    mine = {RUNNER_KEY: "1", RUN_KEY: run}
    job = Job("mine", ray_says, "command", "", 1.0, None, None, mine)
    record = a_record(Path(run), state=record_says) if record_says else None
    foreign = Job("foreign", "RUNNING", "command", "", 1.0, None, None, {RUN_KEY: "/runs/a"})
    monkeypatch.setattr(run_in_use.jobs, "list_jobs", lambda address: [foreign, job])
    monkeypatch.setattr(run_in_use, "standing_of", lambda address, id: JobSummary(job, record))
    if in_use:
        with pytest.raises(ClusterError, match=r"in use by the job mine .*jobs stop mine"):
            check_jobs("head", "/runs/a")
    else:
        check_jobs("head", "/runs/a")
