"""The cache: whole files only, within its bound, and never a reason to stop."""

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine_parts import missing
from support.quality import memory

from data_pipeline.storage.shard_cache import ShardCache


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def add(cache: ShardCache, data: bytes, age_seconds: float = 0) -> Path:
    cache.add(sha256_of(data), data)
    path = cache.folder / sha256_of(data)
    used = time.time() - age_seconds
    os.utime(path, (used, used))
    return path


def files_of(cache: ShardCache) -> set[Path]:
    return {path for path in cache.folder.iterdir() if path.name != ".lock"}


def test_the_least_recently_used_leave_first(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 30)
    ages = ((b"a", 3000), (b"b", 2000), (b"c", 1000))
    oldest, newer, newest = (add(cache, letter * 10, age) for letter, age in ages)
    assert cache.get(oldest.name, 1000) == b"a" * 10
    latest = add(cache, b"d" * 11)
    assert files_of(cache) == {oldest, latest}
    assert cache.get(newer.name, 1000) is None
    assert cache.get(newest.name, 1000) is None


def test_a_file_that_is_there_already_takes_its_room_once(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 30)
    both = {add(cache, b"a" * 15), add(cache, b"b" * 15)}
    add(cache, b"b" * 15)
    assert files_of(cache) == both


def test_a_file_above_the_bound_is_not_kept(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 30)
    small = add(cache, b"a" * 30)
    cache.add(sha256_of(b"b" * 31), b"b" * 31)
    assert files_of(cache) == {small}


def test_a_damaged_copy_is_removed(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 30)
    path = add(cache, b"a" * 10)
    path.write_bytes(b"a" * 9 + b"b")
    assert cache.get(path.name, 1000) is None
    assert files_of(cache) == set()


def test_a_copy_that_has_grown_is_removed_unread(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 30)
    path = add(cache, b"a" * 10)
    os.truncate(path, 10**10)
    with memory.at_most(1_000_000):
        assert cache.get(path.name, 10) is None
    assert files_of(cache) == set()


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    old, young, foreign = (tmp_path / name for name in (".partial-1", ".partial-2", "notes.txt"))
    for path in (old, young, foreign):
        path.write_bytes(b"x" * 40)
    two_hours_ago = time.time() - 7200
    for path in (old, foreign):
        os.utime(path, (two_hours_ago, two_hours_ago))
    cache = ShardCache(tmp_path, 30)
    kept = add(cache, b"a" * 30)
    assert files_of(cache) == {young, foreign, kept}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    try:
        subprocess.run(mount, capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        missing(f"a small file system cannot be mounted ({error})")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.needs("small disks")
def test_a_full_disk_is_told_once(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ShardCache(small_disk / "shards", 1_000_000)
    contents = [letter * 20_000 for letter in (b"a", b"b", b"c", b"d", b"e")]
    for data in contents:
        cache.add(sha256_of(data), data)
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    # What fitted is whole, and nothing half-written is left.
    found = [cache.get(sha256_of(data), 20_000) for data in contents]
    assert 0 < len(files_of(cache)) == sum(data is not None for data in found) < len(contents)
