"""Private folders in a node's memory, and those that dead processes have left."""

import os
import subprocess
import sys
from contextlib import closing

import pytest

from trainer.checkpoints import memory_folder
from trainer.checkpoints.memory_folder import (
    MemoryFolder,
    free_bytes,
    remove_stale_folders,
    used_bytes,
    user_folder,
)
from trainer.errors import CheckpointError

HOLD = """
import sys
from pathlib import Path
from trainer.checkpoints import memory_folder
memory_folder.SHARED_MEMORY = Path(sys.argv[1])
kept = memory_folder.MemoryFolder("run")
(kept.path / "file").write_bytes(b"1")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def shared_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_folder, "SHARED_MEMORY", tmp_path)
    return tmp_path


def test_no_other_user_can_read_a_folder():
    with closing(MemoryFolder("run")) as folder:
        for path in (folder.path, user_folder()):
            assert path.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_a_living_process_stays_and_that_of_a_killed_one_goes(shared_memory):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(shared_memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        file = user_folder() / "run" / "file"
        remove_stale_folders()
        assert file.exists()
    finally:
        process.kill()
        process.communicate()
    remove_stale_folders()
    assert not file.parent.exists()


def test_several_processes_share_a_folder():
    with closing(MemoryFolder("run")) as first, closing(MemoryFolder("run")):
        remove_stale_folders()
        assert first.path.exists()


@pytest.mark.parametrize("obstacle", ["open to others", "a link", "a file"])
def test_a_foreign_folder_is_refused(shared_memory, obstacle):
    path = shared_memory / f"transloom-{os.geteuid()}"
    if obstacle == "open to others":
        path.mkdir(mode=0o755)
    elif obstacle == "a link":
        path.symlink_to("/tmp")
    else:
        path.write_text("")
    with pytest.raises(CheckpointError, match=f"transloom-{os.geteuid()}"):
        MemoryFolder("run")
    remove_stale_folders()
    assert path.lstat()


def test_a_machine_without_shared_memory_is_named(shared_memory, monkeypatch):
    monkeypatch.setattr(memory_folder, "SHARED_MEMORY", shared_memory / "missing")
    with pytest.raises(CheckpointError, match="cannot be created: No such file"):
        MemoryFolder("run")


def test_the_space_of_a_run_includes_what_it_uses():
    with closing(MemoryFolder("run")) as folder:
        before = free_bytes(folder.path)
        (folder.path / "file").write_bytes(b"1" * 100_000)
        assert used_bytes(folder.path) >= 100_000
        assert free_bytes(folder.path) > before - 50_000_000  # other processes write, too


def test_used_bytes_are_those_of_allocated_blocks_in_all_subfolders(tmp_path):
    (tmp_path / "attempt").mkdir()
    for name in ("file", "attempt/file"):
        (tmp_path / name).write_bytes(b"1" * 1_000_000)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(10**9)
    assert 2_000_000 <= used_bytes(tmp_path) < 2_100_000


def test_bytes_that_a_run_uses_now_are_free_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_folder, "used_bytes", lambda folder: 10**15)
    assert 10**15 < free_bytes(tmp_path) < 2 * 10**15
