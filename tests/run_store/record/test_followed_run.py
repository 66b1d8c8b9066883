"""Run folders that are read repeatedly."""

from support.records.lines import train_line
from support.records.run_folders import made_run, with_status

from run_store.record.followed_run import FollowedRuns


def test_only_active_or_changed_runs_are_summarized_again(tmp_path):
    still, active = (made_run(tmp_path / name, train_line(1)) for name in ("still", "active"))
    read = []

    def summarize(path):
        read.append(path.name)
        return path.name, (path / "status.json").read_text()

    runs = FollowedRuns(summarize, lambda summary: summary[0] == "active")
    assert len(runs.refresh([still, active])) == 2
    assert runs.refresh([still, active]) == []  # the active run was read again, and had not changed
    with_status(still)
    assert [name for name, _ in runs.refresh([still, active])] == ["still"]
    assert read == ["still", "active", "active", "still", "active"]
    runs.refresh([active])
    assert list(runs.summaries) == [active]
