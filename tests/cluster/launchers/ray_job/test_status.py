"""The logs of jobs, as they are followed."""

import pytest

from cluster.launchers.ray_job import status
from cluster.launchers.ray_job.status import log_of

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
