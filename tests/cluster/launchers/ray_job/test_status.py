"""The logs of jobs, as they are followed."""

from pathlib import Path

import pytest
from support.launchers.job_records import a_record

from cluster.errors import ClusterError
from cluster.launchers.ray_job import status
from cluster.launchers.ray_job.record import JobFolder
from cluster.launchers.ray_job.status import Standing, log_in, log_of

PRINTED = "one\ntwo\nthree\n"


def followed(monkeypatch: pytest.MonkeyPatch, lines: int | None, pieces: list[str]) -> str:
    """What is shown of a job that had printed PRINTED, and whose whole log comes in these pieces.

    Ray alone decides how it cuts a log, so the client's answer is made here.
    """

    def job_logs(address: str, job_id: str, *, follow: bool = False):
        return iter(pieces if follow else [PRINTED])

    monkeypatch.setattr(status.jobs, "job_logs", job_logs)
    return "".join(log_of("head", "job", follow=True, lines=lines))


@pytest.mark.parametrize(
    "pieces",
    [
        ["one\ntwo\nthree\n", "four\nthe fifth\n"],
        ["one\n", "two\nthree\nfour\n", "the fifth\n"],  # a piece begins with old lines
        ["one\ntwo\nthree\nfour\nthe fifth\n"],
        list("one\ntwo\nthree\nfour\nthe fifth\n"),
    ],
)
def test_a_followed_log_has_its_last_lines_and_all_new_ones_once(monkeypatch, pieces):
    assert followed(monkeypatch, 1, pieces) == "three\nfour\nthe fifth\n"
    assert followed(monkeypatch, 0, pieces) == "four\nthe fifth\n"
    assert followed(monkeypatch, None, pieces) == "".join(pieces)


def test_a_job_that_prints_no_more_shows_its_last_lines_once(monkeypatch):
    assert followed(monkeypatch, 2, [PRINTED]) == "two\nthree\n"


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    """A job that runs, by its record, and has printed PRINTED."""
    job = JobFolder.of(tmp_path, "mine")
    job.path.mkdir(parents=True)
    job.write(a_record(tmp_path))
    job.log.write_text(PRINTED)
    return job


@pytest.mark.parametrize(
    ("lines", "text"), [(None, PRINTED), (2, "two\nthree\n"), (9, PRINTED), (0, "")]
)
def test_a_log_in_the_runs_folder_has_its_last_lines(
    lines: int | None, text: str, job: JobFolder, tmp_path: Path
) -> None:
    assert "".join(log_in(str(tmp_path), follow=False, lines=lines)) == text


def test_a_log_in_the_runs_folder_is_followed_to_its_last_line(
    job: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job prints, and ends, between a look at the log and one at its record."""
    looks = []
    standing_in = status.standing_in

    def looked_at(folder: str) -> Standing:
        if len(looks) == 2:
            with job.log.open("a") as log:
                log.write("the last\n")
            job.write(a_record(tmp_path, state="SUCCEEDED", exit_code=0))
        standing = standing_in(folder)
        looks.append(standing.status)
        return standing

    monkeypatch.setattr(status, "standing_in", looked_at)
    monkeypatch.setattr(status, "POLL_SECONDS", 0.0)
    assert "".join(log_in(str(tmp_path), follow=True, lines=1)) == "three\nthe last\n"
    assert looks == ["RUNNING", "RUNNING", "SUCCEEDED"]


def test_a_log_that_is_gone_is_named(job: JobFolder, tmp_path: Path) -> None:
    job.log.unlink()
    with pytest.raises(ClusterError, match=f"{job.log} cannot be read: No such file"):
        list(log_in(str(tmp_path), follow=False, lines=None))
