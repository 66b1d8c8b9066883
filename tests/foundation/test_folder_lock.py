"""Work folders are removed by their process, or after its kill by the next process."""

import errno
import os
import signal
from pathlib import Path

import pytest
from support.command import started_python

from foundation import folder_lock
from foundation.folder_lock import work_folder

HOLD = """
import sys
from pathlib import Path
from foundation.folder_lock import work_folder
with work_folder(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Return a process that holds a work folder for the target."""
    process = started_python(HOLD, tmp_path / "a" / "target[1]")
    process.folder = Path(process.stdout.readline().strip())
    assert process.folder.is_dir()
    yield process
    process.kill()
    process.communicate()


def test_a_work_folder_is_hidden_next_to_the_target_and_removed_after_use(tmp_path):
    target = tmp_path / "a" / "target"

    def fail():
        with work_folder(target) as folder:
            assert folder.parent == target.parent
            assert folder.name.startswith(".target.")
            (folder / "file").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(target.parent.iterdir()) == []


def test_the_work_folder_of_a_killed_process_is_removed_by_the_next_process(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    target = tmp_path / "a" / "target[1]"
    with work_folder(target.with_name("another")):
        assert holder.folder.is_dir()
    with work_folder(target) as folder:
        assert list(target.parent.iterdir()) == [folder]


def test_the_work_folder_of_a_live_process_is_kept(tmp_path, holder):
    with work_folder(tmp_path / "a" / "target[1]") as folder:
        assert (holder.folder / "half").is_file()
        assert folder != holder.folder
    holder.communicate("")
    assert list((tmp_path / "a").iterdir()) == []


def test_old_work_folders_are_kept_on_a_file_system_without_locks(tmp_path, monkeypatch):
    """Without locks, nothing shows whether another process uses the folder."""

    def refuse(descriptor, operation):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    left = tmp_path / ".target.unfinished-1"
    left.mkdir()
    monkeypatch.setattr(folder_lock.fcntl, "flock", refuse)
    with work_folder(tmp_path / "target") as folder:
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == [left]
