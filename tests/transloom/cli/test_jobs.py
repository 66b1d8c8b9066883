"""Texts about jobs, made from records without a cluster, and refusals of `jobs` commands."""

import os
from pathlib import Path

import pytest
from support.launchers.job_records import a_record

from cluster.errors import ClusterError
from cluster.launchers.ray_job import status
from cluster.launchers.ray_job.job_record import Attempt
from cluster.launchers.ray_job.job_summary import JobSummary
from cluster.ray.jobs import Job
from cluster.supervision.share_target import ShareTarget
from transloom.cli.jobs import (
    _describe,
    _require_named_environment,
    _require_owner,
    jobs_table,
    stop,
)
from transloom.observe.terminal.run_status_text import job_texts


@pytest.mark.parametrize(("exit_code", "words"), [(None, "no exit code"), (3, "exit code 3")])
def test_texts_of_a_job_describe_a_missing_exit_code(exit_code: int | None, words: str) -> None:
    job = Job("mine", "STOPPED", "", "", None, 2.0, exit_code, {}, "a")
    attempt = Attempt(started=1.0, first_line=1, first_byte=0, exit_code=exit_code)
    record = a_record(Path("/shared/run"), attempts=(attempt, attempt))
    for text in (
        _describe(JobSummary(job, None)),
        _describe(JobSummary(None, record, folder=Path("/shared/run/jobs/mine"))),
        [*job_texts(JobSummary(None, record))][1],
    ):
        assert words in text
        assert "None" not in text


def test_a_file_that_the_user_names_and_owns_is_used(tmp_path):
    keys = tmp_path / "keys.env"
    keys.touch()
    _require_named_environment(str(keys), keys, "mine")
    _require_named_environment(None, None, "mine")
    _require_named_environment("/on/the/nodes.env", Path("/on/the/nodes.env"), "mine")


@pytest.mark.parametrize(
    ("recorded", "named", "remedy"),
    [
        ("/secure/my keys.env", None, r"add --env-file '/secure/my keys\.env'"),
        ("/secure/keys.env", Path("/secure/other.env"), r"add --env-file /secure/keys\.env"),
        (None, Path("/secure/keys.env"), "Omit --env-file"),
    ],
)
def test_retry_refuses_an_environment_file_that_the_user_does_not_name(recorded, named, remedy):
    with pytest.raises(ClusterError, match=rf"record of mine .*{remedy}"):
        _require_named_environment(recorded, named, "mine")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to another user")
def test_retry_refuses_an_environment_file_of_another_user(tmp_path):
    keys = tmp_path / "keys.env"
    keys.touch()
    os.chown(keys, 12345, 12345)
    with pytest.raises(ClusterError, match="another user"):
        _require_named_environment(str(keys), keys, "mine")


def test_stopping_a_job_of_another_user_requires_the_owners_name() -> None:
    summary = JobSummary(None, a_record(Path("/shared/run")))
    _require_owner(summary, None, "ada")
    _require_owner(summary, "ada", "bob@laptop")
    _require_owner(JobSummary(None, None), None, "bob@laptop")  # the record cannot be read
    for named, words in ((None, "and you are bob@laptop"), ("carl", "not of carl")):
        with pytest.raises(ClusterError, match=f"mine is a job of ada, {words}.* --owner ada"):
            _require_owner(summary, named, "bob@laptop")


def test_jobs_stop_checks_the_owner_before_it_calls_ray(monkeypatch) -> None:
    summary = JobSummary(None, a_record(Path("/shared/run")))
    monkeypatch.setattr(status, "job_summary_of", lambda address, job: summary)
    monkeypatch.setattr("cluster.ray.jobs.stop_job", lambda *_: pytest.fail("it was stopped"))
    with pytest.raises(ClusterError):
        stop("mine-3f9a1c2b", "http://127.0.0.1:1", owner="carl")


def test_the_job_table_shows_owner_priority_ranks_target_and_reason() -> None:
    share = ShareTarget(ranks=2, reason="b of bob (priority 50) waits for ranks")
    waiting = a_record(Path("/shared/run"), state="WAITING", waits_for="capacity")
    record = a_record(Path("/shared/run"), ranks=4, share=share)
    table = jobs_table([JobSummary(None, record), JobSummary(None, waiting)]).plain()
    _, first, second = (line.split("\t") for line in table.splitlines())
    assert first[1:6] == ["ada", "70", "RUNNING", "4", "2"]
    assert (first[-1], second[-1]) == (share.reason, "capacity")
    assert f"target 2: {share.reason}" in _describe(JobSummary(None, record))
