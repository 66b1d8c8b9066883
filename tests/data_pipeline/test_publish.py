"""Folders that appear whole or not at all."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.errors import DatasetError
from data_pipeline.publish import check_replaceable, publish, work_folder


def fill(folder: Path, content: str) -> None:
    (folder / "shards").mkdir(parents=True)
    (folder / "manifest.json").write_text(content)


def test_new_folder_replaces_the_old_one(tmp_path: Path) -> None:
    dataset = tmp_path / "deep" / "dataset"
    for content in ("one", "two"):
        with work_folder(dataset) as work:
            fill(work / "new", content)
            publish(work / "new", dataset, work / "old")
        assert (dataset / "manifest.json").read_text() == content
        assert [path.name for path in dataset.parent.iterdir()] == ["dataset"]


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with work_folder(tmp_path / "dataset") as work:
            fill(work / "new", "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_a_living_one_kept(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    prefix = f".dataset.prepare-{socket.gethostname()}-"
    names = [f"{prefix}{pid}" for pid in (ended.pid, os.getpid(), os.getppid())]
    names.append(".dataset.prepare-another-host-1")
    for name in names:
        fill(tmp_path / name / "new", "left")
    with work_folder(tmp_path / "dataset") as work:
        assert list(work.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[2:])


def test_folders_that_are_no_datasets_are_not_touched(tmp_path: Path) -> None:
    home, file, empty = tmp_path / "home", tmp_path / "file", tmp_path / "empty"
    home.mkdir()
    (home / "thesis.tex").write_text("x")
    file.write_text("x")
    empty.mkdir()
    for path in (home, file):
        with pytest.raises(DatasetError, match="is not a dataset: it has no manifest"):
            check_replaceable(path)
    check_replaceable(empty)
    check_replaceable(tmp_path / "nothing")
