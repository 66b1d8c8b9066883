"""Private folders in a node's memory, and removal of those left by dead processes."""

import os
from contextlib import closing

import pytest
from support.command import started_python

from run_store.checkpoints import memory_folder
from run_store.checkpoints.memory_folder import (
    MemoryFolder,
    free_bytes,
    remove_stale_folders,
    used_bytes,
    user_folder,
)
from run_store.errors import CheckpointError

HOLD = """
import sys
from pathlib import Path
from run_store.checkpoints import memory_folder
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


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(shared_memory):
    process = started_python(HOLD, shared_memory)
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


def test_a_folder_stays_while_one_of_the_processes_that_share_it_lives():
    with closing(MemoryFolder("run")) as first, closing(MemoryFolder("run")):
        remove_stale_folders()
        assert first.path.exists()


OBSTACLES = {
    "open to others": lambda path: path.mkdir(mode=0o755),
    "a link": lambda path: path.symlink_to("/tmp"),
    "a file": lambda path: path.write_text(""),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_another_folder_is_used_if_the_usual_name_is_taken(shared_memory, obstacle):
    usual = shared_memory / f"transloom-{os.geteuid()}"
    OBSTACLES[obstacle](usual)
    OBSTACLES[obstacle](shared_memory / f"{usual.name}-1")
    with closing(MemoryFolder("run")) as folder, closing(MemoryFolder("run")) as again:
        assert folder.path == again.path  # the agent and the ranks of a node share it
        assert folder.path.parent.parent == shared_memory
        assert folder.path.parent.stat().st_mode & 0o777 == 0o700
        remove_stale_folders()
        assert folder.path.exists()
        usual.rmdir() if usual.is_dir() and not usual.is_symlink() else usual.unlink()
        assert user_folder() == folder.path.parent  # even after the usual name becomes free
    remove_stale_folders()
    assert not folder.path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as two users")
def test_another_folder_is_used_if_another_user_owns_the_usual_one(shared_memory):
    usual = shared_memory / f"transloom-{os.geteuid()}"
    usual.mkdir(mode=0o700)
    os.chown(usual, 65534, 65534)
    with closing(MemoryFolder("run")) as folder:
        assert folder.path.parent not in (usual, shared_memory)
    assert not list(usual.iterdir())


def test_a_machine_without_shared_memory_is_reported(shared_memory, monkeypatch):
    monkeypatch.setattr(memory_folder, "SHARED_MEMORY", shared_memory / "missing")
    with pytest.raises(CheckpointError, match="cannot be created: No such file"):
        MemoryFolder("run")


def test_the_free_space_of_a_run_includes_the_bytes_that_it_uses():
    with closing(MemoryFolder("run")) as folder:
        before = free_bytes(folder.path)
        (folder.path / "file").write_bytes(b"1" * 100_000)
        assert used_bytes(folder.path) >= 100_000
        assert free_bytes(folder.path) > before - 50_000_000  # other processes write, too


def test_used_bytes_are_the_allocated_blocks_of_all_subfolders(tmp_path):
    (tmp_path / "attempt").mkdir()
    for name in ("file", "attempt/file"):
        (tmp_path / name).write_bytes(b"1" * 1_000_000)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(10**9)
    assert 2_000_000 <= used_bytes(tmp_path) < 2_100_000


def test_free_bytes_add_the_bytes_used_by_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_folder, "used_bytes", lambda folder: 10**15)
    assert 10**15 < free_bytes(tmp_path) < 2 * 10**15
