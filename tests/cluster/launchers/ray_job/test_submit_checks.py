"""A job is refused before it is sent if its head node cannot run it or its run is in use.

Runs in use by jobs of a real cluster: tests/integration/test_jobs.py.
"""

import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.launchers.job_records import a_record
from support.records.lines import train_line
from support.records.run_folders import made_run, with_owner

from cluster.errors import ClusterError
from cluster.launchers.ray_job import submit_checks
from cluster.launchers.ray_job.job_record import RUNNER_KEY, JobFolder, JobRequest
from cluster.launchers.ray_job.job_summary import JobSummary
from cluster.launchers.ray_job.submission import send
from cluster.launchers.ray_job.submit_checks import (
    PYTHONS,
    check_folder,
    check_head,
    check_jobs,
)
from cluster.planning.versions import CHECKED_PACKAGES, version_of
from cluster.ray.exposure import HeadProbe
from cluster.ray.jobs import Job
from cluster.ray.shares import RUN_KEY, Needs

HEAD = "http://head:8265"
REQUEST = JobRequest(
    name="tiny.yaml",
    recipe="name: tiny\n",
    overrides=(),
    run="/shared/runs/tiny",
    folder="/projects/mine",
    dataset="/data",
    needs=Needs(ranks=1, bundle={"CPU": 1}, cpus_of_workers=0),
    retry_exit_codes=(75,),
    retries=3,
    digest="00",
)
SEEN = HeadProbe(
    endpoints=(),
    python="3.11.9",
    versions={name: version_of(name) for name in CHECKED_PACKAGES},
    digest="00",
    folders={"/shared/runs": True, "/projects/mine": False},
)


def told(seen: HeadProbe) -> list[str]:
    notices: list[str] = []
    check_head(seen, REQUEST, HEAD, notices.append)
    return notices


def test_a_head_that_lacks_nothing_causes_no_notice() -> None:
    assert told(SEEN) == []


def test_a_head_without_probe_results_causes_no_notice() -> None:
    assert told(HeadProbe(("open",))) == []


def test_packages_missing_on_the_head_are_reported() -> None:
    lacks = replace(SEEN, versions={**SEEN.versions, "torch": None, "deepspeed": None})
    with pytest.raises(ClusterError, match=f"{HEAD} has no torch and no deepspeed"):
        told(lacks)


def test_no_job_is_sent_to_a_head_that_lacks_a_package() -> None:
    exposure: Any = SimpleNamespace(
        dashboard=HEAD, wait=lambda: replace(SEEN, versions={**SEEN.versions, "torch": None})
    )
    listener: Any = SimpleNamespace(warn=pytest.fail, progress=pytest.fail)
    recipe: Any = None  # not read before the check fails
    with pytest.raises(ClusterError, match=f"{HEAD} has no torch"):
        send(recipe, REQUEST, exposure, listener, "transloom.cli.entry")


def test_a_different_package_version_is_reported_with_both_versions() -> None:
    (notice,) = told(replace(SEEN, versions={**SEEN.versions, "torch": "2.11.0+cu130"}))
    assert f"torch 2.11.0+cu130, but this machine has {version_of('torch')}" in notice


@pytest.mark.parametrize("python", ["3.10.14", "3.14.0"])
def test_an_unsupported_python_on_the_head_is_refused(python: str) -> None:
    with pytest.raises(ClusterError, match=f"Python {python}, but transloom needs 3.11 to 3.13"):
        told(replace(SEEN, python=python))


def test_the_supported_pythons_are_those_of_pyproject() -> None:
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    (first, last) = PYTHONS
    assert project["requires-python"] == f">={first[0]}.{first[1]},<{last[0]}.{last[1] + 1}"


@pytest.mark.parametrize("folder", ["/shared/runs/tiny", "/shared/runs"])
def test_a_folder_that_cannot_be_written_is_refused_with_its_reason(folder: str) -> None:
    unwritable = {folder: f"{folder} is on a file system that is mounted read-only"}
    with pytest.raises(ClusterError, match=r"/shared/runs/tiny: .*read-only.*--run PATH"):
        told(replace(SEEN, unwritable=unwritable))
    told(replace(SEEN, unwritable={"/projects/mine": "it need not be"}))


def test_folders_missing_on_the_head_are_reported() -> None:
    nowhere = dict.fromkeys(SEEN.folders, False)
    with pytest.raises(ClusterError, match="neither /shared/runs nor /projects/mine"):
        told(replace(SEEN, folders=nowhere))


def test_a_run_in_training_is_refused_with_the_command_that_stops_it(
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
        ClusterError, match=f"the job mine of ada, process 77 on far .* `transloom jobs stop {run}`"
    ):
        check_folder(run)
    with_owner(run, host="far", process=77, place="elsewhere", silent_seconds=100)
    check_folder(run)


@pytest.mark.parametrize(
    ("ray_says", "record_says", "run", "in_use"),
    [
        ("RUNNING", "RUNNING", "/runs/a", True),
        ("RUNNING", None, "/runs/a/", True),  # the runner has not started
        ("PENDING", "WAITING", "/runs/a", True),
        ("RUNNING", "SUCCEEDED", "/runs/a", False),  # Ray reports the end a little later
        ("FAILED", "RUNNING", "/runs/a", False),  # the runner was killed
        ("RUNNING", "RUNNING", "/runs/b", False),
    ],
)
def test_a_job_that_ended_according_to_ray_or_its_record_uses_no_run(
    monkeypatch: pytest.MonkeyPatch, ray_says: str, record_says: str | None, run: str, in_use: bool
) -> None:
    """These states are too short to be met on a real cluster."""
    mine = {RUNNER_KEY: "1", RUN_KEY: run}
    job = Job("mine", ray_says, "command", "", 1.0, None, None, mine)
    record = a_record(Path(run), state=record_says) if record_says else None
    foreign = Job("foreign", "RUNNING", "command", "", 1.0, None, None, {RUN_KEY: "/runs/a"})
    monkeypatch.setattr(submit_checks.jobs, "list_jobs", lambda address: [foreign, job])
    monkeypatch.setattr(
        submit_checks, "job_summary_of", lambda address, id: JobSummary(job, record)
    )
    if in_use:
        with pytest.raises(ClusterError, match=r"in use by the job mine .*jobs stop mine"):
            check_jobs("head", "/runs/a")
    else:
        check_jobs("head", "/runs/a")
