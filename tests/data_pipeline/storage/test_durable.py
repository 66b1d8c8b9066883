"""Write files so that they are complete or absent."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.cluster.processes import wait_until
from support.files.disk_calls import by_name, record_disk_calls

from data_pipeline.storage.regular_files import sync_to_disk, write_atomically, write_durably


def test_the_returned_hash_is_that_of_the_file(tmp_path: Path) -> None:
    sha256 = write_durably(tmp_path / "a", b"\x00some bytes")
    assert sha256 == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()


@pytest.mark.parametrize("content", ["text é", b"\xff bytes", ""])
def test_an_atomic_write_replaces_the_old_content(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "a.json"
    path.write_text("longer than what comes")
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]
    sync_to_disk(path)
    sync_to_disk(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    (tmp_path / "a.unfinished").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_a_kill_at_any_time_leaves_a_complete_file(tmp_path: Path) -> None:
    """The file is rewritten repeatedly with one letter, and always has a single letter and full
    size.
    """
    path = tmp_path / "a"
    program = (
        "import sys; from pathlib import Path\n"
        "from data_pipeline.storage.regular_files import write_atomically\n"
        "while True:\n"
        "    for letter in 'abcdefgh': write_atomically(Path(sys.argv[1]), letter * 300_000)"
    )
    for moment in range(5):
        writer = subprocess.Popen([sys.executable, "-c", program, str(path)])
        wait_until(path.exists)
        time.sleep(0.013 * moment)
        writer.kill()
        writer.wait()
        content = path.read_text()
        assert content == content[0] * 300_000
        path.unlink()


def test_content_is_synced_before_the_rename_and_the_name_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record_disk_calls(monkeypatch)
    write_atomically(tmp_path / "a", "new")
    assert by_name(calls) == [("sync", "a.unfinished"), ("rename", "a"), ("sync", tmp_path.name)]
