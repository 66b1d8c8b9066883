"""Publish a dataset's folder as a whole or not at all."""

import json
import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.files.disk_calls import by_name, record_disk_calls
from support.records.run_folders import dead_process

from data_pipeline.errors import DatasetError
from data_pipeline.preparation.publish import (
    check_replaceable,
    clear_leftovers,
    publish,
    work_folder,
)


def fill(folder: Path, content: str) -> None:
    (folder / "shards").mkdir(parents=True)
    manifest = {"format": "transloom-dataset/2", "content": content}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def dead() -> int:
    """Return the id of a process that has ended."""
    return dead_process()


def work_of(dataset: Path, pid: int, host: str | None = None) -> Path:
    return dataset.parent / f".{dataset.name}.prepare-{host or socket.gethostname()}-{pid}"


def test_a_new_folder_replaces_the_old_folder(tmp_path: Path) -> None:
    dataset = tmp_path / "deep" / "dataset"
    for content in ("one", "two"):
        with work_folder(dataset) as work:
            fill(work / "new", content)
            publish(work / "new", dataset, work / "old", check_replaceable(dataset))
        assert json.loads((dataset / "manifest.json").read_text())["content"] == content
        assert [path.name for path in dataset.parent.iterdir()] == ["dataset"]


def test_a_failed_preparation_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with work_folder(tmp_path / "dataset") as work:
            fill(work / "new", "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_between_the_two_renames_restores_the_old_folder(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    fill(dataset, "old")
    with pytest.raises(FileNotFoundError), work_folder(dataset) as work:
        publish(work / "no such folder", dataset, work / "old", check_replaceable(dataset))
    assert "old" in (dataset / "manifest.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


@pytest.mark.parametrize("name", ["dataset", "[a]*?"])
def test_folders_of_a_killed_process_are_removed_and_of_a_live_one_kept(
    tmp_path: Path, dead: int, name: str
) -> None:
    dataset = tmp_path / name
    gone = [work_of(dataset, pid) for pid in (dead, os.getpid())]
    kept = [
        work_of(dataset, os.getppid()),
        work_of(dataset, dead, "another-host"),
        work_of(tmp_path / "other", dead),
    ]
    for folder in (*gone, *kept):
        fill(folder / "new", "left")
    clear_leftovers(dataset)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_the_old_dataset_of_a_killed_process_is_restored(tmp_path: Path, dead: int) -> None:
    """The process was killed after the first of the two renames."""
    dataset = tmp_path / "dataset"
    fill(work_of(dataset, dead) / "old", "old")
    fill(work_of(dataset, dead) / "new", "new")
    clear_leftovers(dataset)
    assert "old" in (dataset / "manifest.json").read_text()
    assert list(tmp_path.iterdir()) == [dataset]


def test_a_replaced_dataset_is_not_restored_after_a_kill(tmp_path: Path, dead: int) -> None:
    """The process was killed after the second rename."""
    dataset = tmp_path / "dataset"
    fill(work_of(dataset, dead) / "old", "old")
    fill(dataset, "new")
    clear_leftovers(dataset)
    assert "new" in (dataset / "manifest.json").read_text()
    assert list(tmp_path.iterdir()) == [dataset]


def test_clearing_a_missing_folder_does_nothing(tmp_path: Path) -> None:
    clear_leftovers(tmp_path / "no" / "folder" / "dataset")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_no_datasets_are_not_replaced(tmp_path: Path) -> None:
    home, file, empty = tmp_path / "home", tmp_path / "file", tmp_path / "empty"
    home.mkdir()
    (home / "thesis.tex").write_text("x")
    file.write_text("x")
    empty.mkdir()
    (tmp_path / "broken link").symlink_to("nowhere")
    for path in (home, file, tmp_path / "broken link"):
        with pytest.raises(DatasetError, match=r"has no manifest\.json of a dataset"):
            check_replaceable(path)
    check_replaceable(empty)
    check_replaceable(tmp_path / "nothing")


def test_a_folder_with_a_foreign_manifest_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "app"}')
    with pytest.raises(DatasetError, match=r"no manifest\.json of a dataset"):
        check_replaceable(folder)


def test_a_dataset_that_another_preparation_has_created_is_kept(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    expected = check_replaceable(dataset)
    with work_folder(dataset) as work:
        (work / "new").mkdir()
        dataset.mkdir()
        (dataset / "manifest.json").write_text('{"format": "transloom-dataset/2"}')
        with pytest.raises(DatasetError, match="Another process has changed"):
            publish(work / "new", dataset, work / "old", expected)
    assert (dataset / "manifest.json").exists()


def test_a_dataset_that_another_preparation_has_replaced_is_kept(tmp_path: Path) -> None:
    """Two preparations overwrite the same dataset, and the other preparation finishes first."""
    dataset = tmp_path / "dataset"
    fill(dataset, "one")
    expected = check_replaceable(dataset)
    with work_folder(dataset) as work:
        fill(work / "new", "ours")
        (dataset / "manifest.json").write_text('{"format": "transloom-dataset/2"}')
        with pytest.raises(DatasetError, match="Another process has changed"):
            publish(work / "new", dataset, work / "old", expected)
    assert (dataset / "manifest.json").read_text() == '{"format": "transloom-dataset/2"}'
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_folders_are_synced_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = tmp_path / "dataset"
    with work_folder(dataset) as work:
        fill(work / "new", "one")
        calls = record_disk_calls(monkeypatch)
        publish(work / "new", dataset, work / "old", None)
    at = calls.index(("rename", dataset))
    assert sorted(by_name(calls[:at])) == [("sync", "new"), ("sync", "shards")]
    assert calls[at + 1] == ("sync", tmp_path)


def test_another_user_s_process_is_not_taken_for_dead(another_users_process: int) -> None:
    with pytest.raises(PermissionError):
        os.kill(another_users_process, 0)
    with TemporaryDirectory() as folder:  # a folder that this user can write to
        dataset = Path(folder) / "dataset"
        work = work_of(dataset, another_users_process)
        work.mkdir()
        clear_leftovers(dataset)
        assert work.exists()
