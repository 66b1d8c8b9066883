"""The status of a job, read from the run's folder or from the cluster."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.launchers.job_records import a_record
from support.records.run_folders import dead_process

from cluster.errors import ClusterError
from cluster.launchers.ray_job import status
from cluster.launchers.ray_job.job_record import (
    HEARTBEAT_TIMEOUT_SECONDS,
    Attempt,
    JobFolder,
    Runner,
)
from cluster.launchers.ray_job.job_summary import JobSummary, newest_job_of
from cluster.ray.jobs import Job
from transloom.observe.terminal.job_poller import ClusterJobPoller
from transloom.observe.terminal.run_status_text import job_texts


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder.of(tmp_path, "mine")
    folder.path.mkdir(parents=True)
    return folder


def test_a_waiting_job_is_not_finished(folder: JobFolder, tmp_path: Path) -> None:
    folder.write(a_record(tmp_path, state="WAITING", waits_for="room: it needs 8 CPU"))
    job = newest_job_of(tmp_path)
    assert job is not None
    assert (job.id, job.status, job.finished) == ("mine", "WAITING", False)
    assert job.waits_for == "room: it needs 8 CPU"


def test_a_failed_job_is_finished_and_waits_for_nothing(folder: JobFolder, tmp_path: Path) -> None:
    folder.write(a_record(tmp_path, state="FAILED", waits_for="room", message="it broke"))
    job = newest_job_of(tmp_path)
    assert job is not None
    assert (job.status, job.finished, job.waits_for) == ("FAILED", True, None)
    assert job.message == "it broke"


def test_the_text_of_a_restart_names_its_cause(folder: JobFolder, tmp_path: Path) -> None:
    died = Attempt(
        started=1.0, ended=2.0, exit_code=137, why="Killed", first_line=1, first_byte=0, step=40
    )
    runs = Attempt(started=3.0, first_line=2, first_byte=9)
    folder.write(a_record(tmp_path, attempts=(died, runs)))
    job = newest_job_of(tmp_path)
    assert job is not None
    _, restart = job_texts(job)
    assert "exit code 137 at step 40: Killed" in restart


def test_a_job_whose_process_has_died_is_lost(folder: JobFolder, tmp_path: Path) -> None:
    gone = Runner.of_this_process().model_copy(update={"process": dead_process()})
    folder.write(a_record(tmp_path, runner=gone))
    job = newest_job_of(tmp_path)
    assert job is not None
    assert (job.status, job.finished) == ("LOST", True)


def test_a_job_on_another_machine_is_lost_without_recent_heartbeats(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(seconds: float) -> None:
        raise AssertionError("a view waits for nobody")

    monkeypatch.setattr(time, "sleep", never)
    far = Runner.of_this_process().model_copy(update={"boot": "another machine"})
    folder.write(a_record(tmp_path, runner=far))
    job = newest_job_of(tmp_path)
    assert job is not None
    assert not job.finished
    silent = time.time() - 2 * HEARTBEAT_TIMEOUT_SECONDS
    os.utime(folder.record_file, (silent, silent))
    job = newest_job_of(tmp_path)
    assert job is not None
    assert job.status == "LOST"


def test_no_job_is_found_if_the_record_is_missing_or_damaged(
    folder: JobFolder, tmp_path: Path
) -> None:
    assert newest_job_of(tmp_path / "nothing") is None
    folder.record_file.write_text("{")
    assert newest_job_of(tmp_path) is None


class Head:
    """A cluster that returns given answers about a job and counts the requests."""

    def __init__(self, *answers: JobSummary) -> None:
        self.answers = list(answers)
        self.asked = 0

    def job_summary_of(self, address: str, job_id: str) -> JobSummary:
        self.asked += 1
        if not self.answers:
            raise ClusterError("the head is away")
        return self.answers.pop(0)


@pytest.fixture
def by_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., ClusterJobPoller]:
    """Return a function that makes the poller of a job of a given cluster."""

    def make(head: Head) -> ClusterJobPoller:
        monkeypatch.setattr(status, "job_summary_of", head.job_summary_of)
        return ClusterJobPoller("http://head:8265", "mine")

    return make


def as_ray_has_it(run: str) -> JobSummary:
    job = Job(
        id="mine",
        status="PENDING",
        command="transloom train",
        started=1.0,
        ended=None,
        message="queued",
        exit_code=None,
        node=None,
        metadata={"run": run},
    )
    return JobSummary(job, None)


def test_a_job_has_the_state_from_ray_until_its_record_exists(
    by_id: Callable[..., ClusterJobPoller], folder: JobFolder, tmp_path: Path
) -> None:
    head = Head(as_ray_has_it(str(tmp_path)), as_ray_has_it(str(tmp_path)))
    job = by_id(head)
    assert job.run == tmp_path
    seen = job.poll()
    assert (seen.status, seen.finished, seen.message) == ("PENDING", False, "queued")
    assert job.poll() == seen  # this time the cluster does not answer
    asked = head.asked
    folder.write(a_record(tmp_path, state="WAITING", waits_for="room"))
    assert job.poll().waits_for == "room"
    assert head.asked == asked


def test_a_job_that_is_not_a_training_job_is_refused(
    by_id: Callable[..., ClusterJobPoller],
) -> None:
    with pytest.raises(ClusterError, match="mine is no training job of transloom"):
        by_id(Head(as_ray_has_it("")))
