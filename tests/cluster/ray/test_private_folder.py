import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.another_user import NOBODY, as_another_user
from support.command import started_python

from cluster.errors import ClusterError
from cluster.ray.folder_access import access_by_others
from cluster.ray.private_folder import LONGEST_PARENT, PREFIX, PrivateFolder

HOLDER = """
import sys
from cluster.ray.private_folder import PrivateFolder
print(PrivateFolder().path.parent, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder like /tmp, where users may create files, but remove only their files."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def test_other_users_have_no_access_and_removal_leaves_nothing(parent: Path) -> None:
    folder = PrivateFolder()
    folder.path.mkdir()
    folder.path.chmod(0o777)  # the mode that Ray sets
    (folder.path / "logs").mkdir(0o777)
    outer = folder.path.parent
    assert (outer.parent, outer.stat().st_mode & 0o7777) == (parent, 0o700)
    assert access_by_others(folder.path) is None
    for attempt in (
        f"ls {outer}",
        f"ls {folder.path}",
        f"echo mine > {folder.path}/file",
        f"mv {folder.path}/logs {folder.path}/away",
        f"ln -s /tmp {folder.path}/link",
        f"mv {outer} {parent}/away",
        f"rmdir {folder.path}/logs",
    ):
        tried = as_another_user(attempt)
        assert tried.returncode != 0, attempt
        assert "not permitted" in tried.stderr or "denied" in tried.stderr
    folder.remove()
    assert list(parent.iterdir()) == []


def test_a_new_folder_removes_folders_of_killed_processes_and_nothing_else(parent: Path) -> None:
    holders = [started_python(HOLDER) for _ in range(2)]
    killed, alive = (Path(holder.stdout.readline().strip()) for holder in holders if holder.stdout)
    (killed / "r" / "logs").mkdir(parents=True)
    holders[0].kill()
    holders[0].communicate()
    target = parent / "precious"
    target.mkdir()
    (target / "file").touch()
    (parent / f"{PREFIX}link").symlink_to(target)
    (parent / f"{PREFIX}file").touch()
    foreign = parent / f"{PREFIX}foreign"
    as_another_user(f"mkdir {foreign} && chmod 755 {foreign}")
    mine = PrivateFolder()
    try:
        there = {path.name for path in parent.iterdir()}
        others = {"precious", f"{PREFIX}link", f"{PREFIX}file", foreign.name}
        assert there == {alive.name, mine.path.parent.name} | others
        assert (target / "file").exists()
    finally:
        mine.keep_for_inspection()
        holders[1].communicate()
    PrivateFolder().remove()  # no process uses the earlier folders any more
    assert {path.name for path in parent.iterdir()} == others


def test_ray_tmpdir_must_be_short_and_writable_by_its_owner_only(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent.chmod(0o777)
    with pytest.raises(ClusterError, match=r"may replace .*mode 0777.*RAY_TMPDIR.*chmod 700"):
        PrivateFolder()
    long = parent / ("x" * LONGEST_PARENT)
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    length = len(str(long))
    with pytest.raises(ClusterError, match=f"has {length} bytes, but may have at most "):
        PrivateFolder()
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nowhere")
    with pytest.raises(ClusterError, match=r"/proc/nowhere: there is no such folder.*RAY_TMPDIR"):
        PrivateFolder()
    monkeypatch.setenv("RAY_TMPDIR", "/proc/self")
    with pytest.raises(ClusterError, match=r"in /proc/self: .*RAY_TMPDIR"):
        PrivateFolder()


def test_tmp_replaces_an_unsuitable_tmpdir(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", str(parent))
    for mode, expected in ((0o1777, parent), (0o777, Path("/tmp"))):
        parent.chmod(mode)
        folder = PrivateFolder()
        assert folder.path.parent.parent == expected
        folder.remove()
    for unsuitable in (parent / "missing", Path("/proc/self")):  # as on a read-only file system
        monkeypatch.setenv("TMPDIR", str(unsuitable))
        folder = PrivateFolder()
        assert folder.path.parent.parent == Path("/tmp")
        folder.remove()


def test_paths_of_sockets_stay_within_the_limit(parent: Path) -> None:
    folder = PrivateFolder()
    below = "session_2026-01-31_12-00-00_123456_4194304/sockets/plasma_store"
    longest = len(str(folder.path / below)) - len(str(parent)) + LONGEST_PARENT
    folder.remove()
    assert longest == 107  # a Unix socket's address has 108 bytes with its final zero


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_a_parent_of_another_user_is_refused(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine := parent / "his" / "mine").mkdir(parents=True)
    his = mine.parent
    os.chown(his, NOBODY, NOBODY)
    monkeypatch.setenv("RAY_TMPDIR", str(mine))
    with pytest.raises(ClusterError, match=rf"{his} belongs to another user \({NOBODY}\)"):
        PrivateFolder()
