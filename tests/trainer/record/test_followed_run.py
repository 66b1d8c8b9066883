"""Run folders that are read again and again."""

import os

import pytest
from support.records.lines import train_line, validation_line
from support.records.run_folders import made_run, with_owner

from trainer.record import followed_run
from trainer.record.followed_run import FollowedRun, FollowedRuns
from trainer.runs.folder import RunFolder


@pytest.fixture
def run(tmp_path):
    return with_owner(made_run(tmp_path / "run", train_line(1), train_line(2)))


def append(run, text):
    with (run / "metrics.jsonl").open("a") as record:
        record.write(text)


def test_each_line_and_log_entry_is_found_once(run, monkeypatch):
    monkeypatch.setattr(followed_run, "STATUS_SECONDS", 0.0)
    followed = FollowedRun(RunFolder(run), 3)
    followed.read()
    assert [line.step for line in followed.new_lines] == [1, 2]
    append(run, validation_line(2).to_json() + "\n" + train_line(3).to_json()[:9])
    (run / "log.txt").write_text("2026-01-01T00:00:00.000+00:00 begins\n")
    followed.read()
    assert [line.kind for line in followed.new_lines] == ["validation"]
    assert [entry.text for entry in followed.new_entries] == ["begins"]
    followed.read()
    assert (followed.new_lines, followed.new_entries, followed.problems) == ([], [], [])
    assert followed.run_status.state == "training"


def test_a_record_that_was_cut_is_another_one(run):
    followed = FollowedRun(RunFolder(run), 3)
    followed.read()
    os.truncate(run / "metrics.jsonl", len(train_line(1).to_json()) + 1)
    followed.read()
    assert followed.is_other_record
    assert [line.step for line in followed.new_lines] == [1]
    assert "was replaced or cut" in " ".join(followed.problems)
    followed.read()
    assert not followed.is_other_record


def test_only_runs_that_are_active_or_have_changed_are_summarized_again(tmp_path):
    still, active = (made_run(tmp_path / name, train_line(1)) for name in ("still", "active"))
    read = []

    def summarize(path, signatures):
        read.append(path.name)
        return path.name, (path / "metrics.jsonl").read_text()

    runs = FollowedRuns(summarize, lambda summary: summary[0] == "active")
    assert len(runs.refresh([still, active])) == 2
    assert runs.refresh([still, active]) == []  # read, and the same
    append(still, train_line(2).to_json() + "\n")
    assert [name for name, _ in runs.refresh([still, active])] == ["still"]
    assert read == ["still", "active", "active", "still", "active"]
    runs.refresh([active])
    assert list(runs.summaries) == [active]
