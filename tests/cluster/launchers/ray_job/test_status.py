"""Status of jobs according to Ray and to their records, and logs that are followed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.launchers.job_records import a_record

from cluster.errors import ClusterError
from cluster.launchers.ray_job import status
from cluster.launchers.ray_job.head_cluster_view import has_begun
from cluster.launchers.ray_job.job_record import JobFolder
from cluster.launchers.ray_job.job_summary import JobSummary
from cluster.launchers.ray_job.status import all_job_summaries, log_in, log_of
from cluster.ray.jobs import Job

PRINTED = "one\ntwo\nthree\n"


def followed(monkeypatch: pytest.MonkeyPatch, lines: int | None, pieces: list[str]) -> str:
    """Return the output of following a job that had printed PRINTED, with its whole log in
    `pieces`.

    Ray decides how it cuts a log, so this replaces the client's answer.
    """

    def job_logs(address: str, job_id: str, *, follow: bool = False):
        return iter(pieces if follow else [PRINTED])

    monkeypatch.setattr(status.jobs, "job_logs", job_logs)
    return "".join(log_of("head", "job", follow=True, lines=lines))


@pytest.mark.parametrize(
    "pieces",
    [
        ["one\ntwo\nthree\n", "four\nthe fifth\n"],
        ["one\n", "two\nthree\nfour\n", "the fifth\n"],  # a piece begins with lines printed before
        ["one\ntwo\nthree\nfour\nthe fifth\n"],
        list("one\ntwo\nthree\nfour\nthe fifth\n"),
    ],
)
def test_a_followed_log_shows_its_last_lines_and_each_new_line_once(monkeypatch, pieces):
    assert followed(monkeypatch, 1, pieces) == "three\nfour\nthe fifth\n"
    assert followed(monkeypatch, 0, pieces) == "four\nthe fifth\n"
    assert followed(monkeypatch, None, pieces) == "".join(pieces)


def test_a_followed_job_that_prints_nothing_new_shows_its_last_lines_once(monkeypatch):
    assert followed(monkeypatch, 2, [PRINTED]) == "two\nthree\n"


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    """Return the folder of a job that runs, according to its record, and has printed PRINTED."""
    job = JobFolder.of(tmp_path, "mine")
    job.path.mkdir(parents=True)
    job.write(a_record(tmp_path))
    job.log.write_text(PRINTED)
    return job


@pytest.mark.parametrize(
    ("lines", "text"), [(None, PRINTED), (2, "two\nthree\n"), (9, PRINTED), (0, "")]
)
def test_the_last_lines_of_a_log_in_the_run_s_folder_are_shown(
    lines: int | None, text: str, job: JobFolder, tmp_path: Path
) -> None:
    assert "".join(log_in(str(tmp_path), follow=False, lines=lines)) == text


def test_a_log_in_the_runs_folder_is_followed_to_its_last_line(
    job: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job prints and ends after its log was read but before its record is read."""
    looks = []
    job_summary_in = status.job_summary_in

    def looked_at(folder: str) -> JobSummary:
        if len(looks) == 2:
            with job.log.open("a") as log:
                log.write("the last\n")
            job.write(a_record(tmp_path, state="SUCCEEDED", exit_code=0))
        standing = job_summary_in(folder)
        looks.append(standing.status)
        return standing

    monkeypatch.setattr(status, "job_summary_in", looked_at)
    monkeypatch.setattr(status, "POLL_SECONDS", 0.0)
    assert "".join(log_in(str(tmp_path), follow=True, lines=1)) == "three\nthe last\n"
    assert looks == ["RUNNING", "RUNNING", "SUCCEEDED"]


def test_a_missing_log_is_named_in_the_error(job: JobFolder, tmp_path: Path) -> None:
    job.log.unlink()
    with pytest.raises(ClusterError, match=f"{job.log} cannot be read: No such file"):
        list(log_in(str(tmp_path), follow=False, lines=None))


def listed_job(job_id: str, state: str, started: float = 1.0, **metadata: str) -> Job:
    """Return a job as Ray lists it."""
    return Job(job_id, state, "", "", started, None, None, metadata, node="a")


def test_a_job_has_begun_from_its_start_until_its_end(job: JobFolder, tmp_path: Path) -> None:
    """Ray lists a stopped job for another moment, in which it must get no ranks."""
    listed = listed_job("mine", "RUNNING", run=str(tmp_path), runner="1")
    for state, begun in [("WAITING", False), ("RUNNING", True), ("STOPPED", False)]:
        job.write(a_record(tmp_path, state=state))
        assert has_begun(listed) == begun


def standings(
    monkeypatch: pytest.MonkeyPatch,
    status_of_ray: str,
    answer: Callable[[], bytes | None],
    started: float = 1.0,
) -> list[JobSummary]:
    """Return summaries of this user's job, with the record from `answer`, and of another user's
    job.
    """
    ours = listed_job("mine", status_of_ray, started, run="/shared/run", runner="1")
    other = listed_job("other", "RUNNING", started)
    monkeypatch.setattr(status.jobs, "list_jobs", lambda address: [ours, other])
    monkeypatch.setattr(status.jobs, "file_next_to_logs", lambda address, node, name: answer())
    return all_job_summaries("head")


@pytest.mark.parametrize(
    ("by_ray", "by_record", "shown"),
    [
        ("RUNNING", "WAITING", "WAITING"),
        ("RUNNING", "RUNNING", "RUNNING"),
        ("FAILED", "SUCCEEDED", "SUCCEEDED"),  # the record is about the run, Ray about the runner
        ("FAILED", "RUNNING", "FAILED"),  # the runner was killed before it could record that
        ("STOPPED", "WAITING", "STOPPED"),
    ],
)
def test_the_record_gives_a_job_s_status_until_ray_reports_its_end(
    by_ray: str, by_record: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = a_record(Path("/shared/run"), state=by_record)
    ours, other = standings(monkeypatch, by_ray, lambda: record.model_dump_json().encode())
    assert (ours.status, ours.finished) == (shown, shown not in ("WAITING", "RUNNING"))
    assert ours.folder == Path("/shared/run/jobs/mine")
    assert (other.status, other.record) == ("RUNNING", None)


def test_a_job_enters_each_state_once_after_its_submission(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def written(**changes: Any) -> Callable[[], bytes]:
        return lambda: a_record(Path("/shared/run"), **changes).model_dump_json().encode()

    now = time.time()
    shown = [
        standings(monkeypatch, by_ray, answer, started=now)
        for by_ray, answer in [
            ("PENDING", no_answer),
            ("RUNNING", no_answer),  # the runner has started
            ("RUNNING", lambda: None),
            ("RUNNING", written(state="WAITING")),
            ("RUNNING", written(state="STARTING")),
            ("RUNNING", written(state="RUNNING")),
            ("RUNNING", written(state="SUCCEEDED")),
            ("SUCCEEDED", written(state="SUCCEEDED")),
        ]
    ]
    assert list(dict.fromkeys(ours.status for ours, _ in shown)) == [
        *("PENDING", "WAITING", "STARTING", "RUNNING", "SUCCEEDED")
    ]
    assert [ours.finished for ours, _ in shown] == [False] * 6 + [True] * 2
    assert {other.status for _, other in shown} == {"RUNNING"}  # as Ray reports, even for a new job
    (failed, _) = standings(monkeypatch, "FAILED", lambda: None, started=now)
    assert failed.status == "FAILED"  # the runner refused the submission


def no_answer() -> bytes:
    raise ClusterError("the node does not answer")


@pytest.mark.parametrize(
    "answer", [no_answer, lambda: None, lambda: b"{"], ids=["no answer", "no file", "damaged"]
)
def test_a_job_without_a_readable_record_has_the_status_of_ray(
    answer: Callable[[], bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unreadable record hides no other job from the list."""
    ours, other = standings(monkeypatch, "RUNNING", answer)
    assert [(one.id, one.status, one.run) for one in (ours, other)] == [
        ("mine", "RUNNING", "/shared/run"),
        ("other", "RUNNING", ""),
    ]
