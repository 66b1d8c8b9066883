"""Records of jobs: strict parsing, and the status of jobs whose processes have ended."""

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.launchers.job_records import a_record
from support.records.lines import train_line
from support.records.run_folders import made_run, with_owner

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_record import (
    HEARTBEAT_TIMEOUT_SECONDS,
    Attempt,
    JobFolder,
    Runner,
)
from cluster.launchers.ray_job.status import job_summary_in


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder.of(tmp_path, "mine")
    folder.path.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", ["/etc/profile", "../../.bashrc", "a/b.yaml", ""])
def test_a_recipe_name_that_leaves_the_job_folder_is_refused(
    name: str, folder: JobFolder, tmp_path: Path
) -> None:
    values = json.loads(a_record(tmp_path).model_dump_json())
    values["request"]["name"] = name
    folder.record_file.write_text(json.dumps(values))
    with pytest.raises(ClusterError, match=rf"request\.name: .*found '{name}'"):
        folder.read()


def elsewhere(runner: Runner) -> Runner:
    """Return the runner as if on another machine, where this one cannot check its process."""
    return runner.model_copy(update={"boot": "another machine", "host": "far"})


def test_a_written_record_is_read_back(folder: JobFolder, tmp_path: Path) -> None:
    attempt = Attempt(started=1.0, ended=2.0, exit_code=75, first_line=1, first_byte=0, last_line=3)
    written = a_record(tmp_path, attempts=(attempt,), exit_code=75)
    folder.write(written)
    assert folder.read() == written


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format_version": 2}, "format_version: .*found 2"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"state": "DREAMING"}, "state: .*found 'DREAMING'"),
        ({"exit_code": 256}, "exit_code: .*found 256"),
    ],
)
def test_an_invalid_record_is_refused_with_field_and_value(
    change: dict[str, Any], complaint: str, folder: JobFolder, tmp_path: Path
) -> None:
    values = json.loads(a_record(tmp_path).model_dump_json()) | change
    folder.record_file.write_text(json.dumps(values))
    with pytest.raises(ClusterError, match=rf"job\.json is no record of a job: {complaint}"):
        folder.read()


def test_a_job_with_a_live_runner_here_is_not_lost(folder: JobFolder, tmp_path: Path) -> None:
    folder.write(a_record(tmp_path))
    assert not folder.is_lost()
    assert job_summary_in(str(tmp_path)).status == "RUNNING"


def test_a_job_whose_runner_was_killed_is_lost(folder: JobFolder, tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    runner = Runner.of_this_process()
    runner = runner.model_copy(update={"process": process.pid, "started": None})
    process.kill()
    process.wait()
    folder.write(a_record(tmp_path, runner=runner.model_copy(update={"started": 1})))
    standing = job_summary_in(str(tmp_path))
    assert standing.status == "LOST"
    assert standing.finished
    assert job_summary_in(str(folder.path)).id == "mine"  # the job's folder is accepted, too


@pytest.mark.parametrize("touched", [False, True])
def test_a_runner_on_another_machine_is_lost_unless_it_renews_its_record(
    touched: bool, folder: JobFolder, tmp_path: Path
) -> None:
    folder.write(a_record(tmp_path, runner=elsewhere(Runner.of_this_process())))
    os.utime(folder.record_file, (1.0, 1.0))
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if touched and len(waited) == 3:
            folder.renew()

    assert folder.is_lost(sleep) == (not touched)
    assert sum(waited) == (sum(waited[:3]) if touched else HEARTBEAT_TIMEOUT_SECONDS)


def test_a_job_with_a_fresh_record_on_another_machine_is_not_lost_and_nothing_waits(
    folder: JobFolder, tmp_path: Path
) -> None:
    folder.write(a_record(tmp_path, runner=elsewhere(Runner.of_this_process())))
    assert not folder.is_lost(sleep=pytest.fail)


def test_an_ended_job_is_not_lost_without_its_runner(folder: JobFolder, tmp_path: Path) -> None:
    runner = elsewhere(Runner.of_this_process())
    folder.write(a_record(tmp_path, state="SUCCEEDED", exit_code=0, runner=runner))
    os.utime(folder.record_file, (1.0, 1.0))
    assert job_summary_in(str(tmp_path)).status == "SUCCEEDED"


def test_the_status_is_that_of_a_run_s_newest_job(folder: JobFolder, tmp_path: Path) -> None:
    for name, since in (("old", 1.0), ("new", 3.0), ("middle", 2.0)):
        other = JobFolder.of(tmp_path, name)
        other.path.mkdir()
        other.write(a_record(tmp_path, id=name, since=since, state="STOPPED"))
    assert job_summary_in(str(tmp_path)).id == "new"


def ended_at(seconds: float, *, started: float) -> Attempt:
    return Attempt(started=started, ended=seconds, exit_code=1, first_line=1, first_byte=0)


def under_way(started: float) -> Attempt:
    return Attempt(started=started, first_line=1, first_byte=0)


@pytest.mark.parametrize(
    ("owner", "later", "meant"),
    [
        # The owner trains, and the later job was refused or waits.
        ({"attempts": (under_way(1.0),)}, {"state": "FAILED", "since": 5.0}, "owner"),
        ({"attempts": (under_way(1.0),)}, {"state": "WAITING", "since": 5.0}, "owner"),
        # The owner was stopped after the later job was refused.
        (
            {"state": "STOPPED", "attempts": (ended_at(9.0, started=1.0),)},
            {"state": "FAILED", "attempts": (ended_at(6.0, started=5.0),)},
            "owner",
        ),
        # The owner ended before the later job, which failed for a different reason or waits.
        (
            {"state": "STOPPED", "attempts": (ended_at(4.0, started=1.0),)},
            {"state": "FAILED", "attempts": (ended_at(6.0, started=5.0),)},
            "later",
        ),
        (
            {"state": "STOPPED", "attempts": (ended_at(9.0, started=1.0),)},
            {"state": "WAITING", "since": 5.0},
            "later",
        ),
        # The later job has trained the run after the owner.
        (
            {"state": "STOPPED", "attempts": (ended_at(4.0, started=1.0),)},
            {"attempts": (under_way(5.0),), "has_owned_run": True},
            "later",
        ),
    ],
)
def test_the_status_is_that_of_the_job_that_trains_not_of_a_refused_one(
    owner: dict[str, Any], later: dict[str, Any], meant: str, tmp_path: Path
) -> None:
    for name, values in (("owner", {"has_owned_run": True, **owner}), ("later", later)):
        job = JobFolder.of(tmp_path, name)
        job.path.mkdir(parents=True)
        job.write(a_record(tmp_path, id=name, **values))
    assert job_summary_in(str(tmp_path)).id == meant


def test_a_lost_job_does_not_hide_the_next_job(tmp_path: Path) -> None:
    gone = Runner.of_this_process().model_copy(update={"started": 1})
    lost = a_record(
        tmp_path, id="lost", runner=gone, has_owned_run=True, attempts=(under_way(1.0),)
    )
    for record in (lost, a_record(tmp_path, id="next", state="WAITING", since=5.0)):
        job = JobFolder.of(tmp_path, record.id)
        job.path.mkdir(parents=True)
        job.write(record)
    assert job_summary_in(str(tmp_path)).id == "next"


def test_a_folder_without_jobs_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=f"{tmp_path} has no record of a job"):
        job_summary_in(str(tmp_path))


def test_a_job_without_new_steps_is_reported(
    folder: JobFolder, tmp_path: Path, transloom: Any
) -> None:
    folder.write(a_record(tmp_path))
    assert "step " not in transloom("jobs", "status", tmp_path).stdout  # the run does not exist yet
    run = made_run(tmp_path / "stalled", train_line(7))
    with_owner(run, since=(datetime.now(UTC) - timedelta(minutes=50)).isoformat())
    ended = Attempt(
        started=1.0,
        ended=2.0,
        exit_code=75,
        first_line=1,
        first_byte=0,
        last_line=24,
        why="drained",
    )
    running = Attempt(started=3.0, first_line=25, first_byte=900)
    folder.write(a_record(run, attempts=(ended, running)))
    said = transloom("jobs", "status", tmp_path).stdout
    assert "state    training, step 7 of 20 (35.0%); no new step for 5" in said  # in minutes
    assert "log lines 1–24: drained" in said
