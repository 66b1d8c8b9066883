"""Jobs in words, made from records without a cluster."""

from pathlib import Path

import pytest
from support.launchers.job_records import a_record

from cluster.launchers.ray_job.job_record import Attempt
from cluster.launchers.ray_job.status import JobSummary
from cluster.ray.jobs import Job
from transloom.cli.jobs import _describe
from transloom.observe.terminal.job_snapshot import _picture


@pytest.mark.parametrize(("exit_code", "words"), [(None, "no exit code"), (3, "exit code 3")])
def test_an_end_without_an_exit_code_has_words(exit_code: int | None, words: str) -> None:
    job = Job("mine", "STOPPED", "", "", None, 2.0, exit_code, {}, "a")
    attempt = Attempt(started=1.0, first_line=1, first_byte=0, exit_code=exit_code)
    record = a_record(Path("/shared/run"), attempts=(attempt, attempt))
    for text in (
        _describe(JobSummary(job, None)),
        _describe(JobSummary(None, record, folder=Path("/shared/run/jobs/mine"))),
        *_picture("mine", "RUNNING", record).restarts,
    ):
        assert words in text
        assert "None" not in text
