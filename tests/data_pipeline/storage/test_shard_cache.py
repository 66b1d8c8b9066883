"""The cache: only whole files, within its limit; a failure of the cache never stops a run."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine_parts import missing
from support.quality import memory

from data_pipeline.storage.shard_cache import LOCK_NAME, ShardCache


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


def test_the_least_recently_used_files_are_evicted_first(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 30)
    ages = ((b"a", 3000), (b"b", 2000), (b"c", 1000))
    oldest, newer, newest = (add(cache, letter * 10, age) for letter, age in ages)
    assert cache.get(oldest.name, 1000) == b"a" * 10
    latest = add(cache, b"d" * 11)
    assert files_of(cache) == {oldest, latest}
    assert cache.get(newer.name, 1000) is None
    assert cache.get(newest.name, 1000) is None


def test_a_file_that_is_added_again_takes_its_space_only_once(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 30)
    both = {add(cache, b"a" * 15), add(cache, b"b" * 15)}
    add(cache, b"b" * 15)
    assert files_of(cache) == both


def test_a_file_above_the_limit_is_not_cached(tmp_path: Path) -> None:
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


def test_a_copy_that_has_grown_is_removed_without_reading_it(tmp_path: Path) -> None:
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
    """Yield a file system of 64 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    try:
        subprocess.run(mount, capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        missing(f"a small file system cannot be mounted ({error})")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.needs("small disks")
def test_a_full_disk_is_reported_once(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ShardCache(small_disk / "shards", 1_000_000)
    contents = [letter * 20_000 for letter in (b"a", b"b", b"c", b"d", b"e")]
    for data in contents:
        cache.add(sha256_of(data), data)
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    # Files that fit are whole, and no partial file is left.
    found = [cache.get(sha256_of(data), 20_000) for data in contents]
    assert 0 < len(files_of(cache)) == sum(data is not None for data in found) < len(contents)


COPY_BYTES = 10


def add_number(cache: ShardCache, number: int) -> str:
    data = f"{number:0{COPY_BYTES}}".encode()
    cache.add(sha256_of(data), data)
    return sha256_of(data)


def copies(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if len(path.name) == 64}


def assert_total_is_that_of_the_folder(cache: ShardCache) -> None:
    total = int((cache.folder / LOCK_NAME).read_bytes())
    assert total == COPY_BYTES * len(copies(cache.folder)) <= cache.max_bytes


def test_the_folder_is_listed_once_per_tenth_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ShardCache(tmp_path, 100 * COPY_BYTES)
    listings, evict = [], cache._evict
    monkeypatch.setattr(cache, "_evict", lambda most: (listings.append(most), evict(most))[1])
    for number in range(400):
        add_number(cache, number)
        assert_total_is_that_of_the_folder(cache)
    assert len(listings) == 1 + 300 // 11 + 1  # the first addition finds no total
    assert len(copies(tmp_path)) > 88


def test_a_copy_that_is_read_often_outlives_other_copies(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 30 * COPY_BYTES)
    read, others = add_number(cache, 0), list[str]()
    for number in range(1, 200):
        others.append(add_number(cache, number))
        os.utime(tmp_path / others[-1], (number, number))  # several copies have the same time stamp
        assert cache.get(read, COPY_BYTES)
    left = copies(tmp_path)
    assert left == {read, *others[1 - len(left) :]}


@pytest.mark.parametrize("left", [b"", b"nothing", b"\xff" * 60, b"-5"])
def test_a_missing_or_damaged_total_is_counted_again(tmp_path: Path, left: bytes) -> None:
    cache = ShardCache(tmp_path, 30)
    names = [add_number(cache, number) for number in range(3)]
    for age, name in enumerate(reversed(names)):
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / LOCK_NAME).write_bytes(left)
    names.append(add_number(cache, 3))
    assert copies(tmp_path) == {names[2], names[3]}
    assert_total_is_that_of_the_folder(cache)


def test_copies_that_were_removed_by_others_free_their_space(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 30)
    names = [add_number(cache, number) for number in range(3)]
    for name in names[:2]:
        (tmp_path / name).unlink()
    names.append(add_number(cache, 3))
    assert copies(tmp_path) == set(names[2:])
    assert_total_is_that_of_the_folder(cache)


# Child processes import this module.
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parent)])
}


def test_two_processes_can_add_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from test_shard_cache import *\n"
        "cache, first = ShardCache(Path(sys.argv[1]), 400), int(sys.argv[2])\n"
        "for number in range(first, first + 1500): add_number(cache, number)\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), first], env=ENVIRONMENT)
        for first in ("0", "1000")
    ]
    assert [child.wait(60) for child in children] == [0, 0]
    assert_total_is_that_of_the_folder(ShardCache(tmp_path, 400))
    assert len(copies(tmp_path)) > 35
    assert {path.name for path in tmp_path.iterdir()} - copies(tmp_path) == {LOCK_NAME}


KILLED = """
import os, signal, sys
from pathlib import Path
from test_shard_cache import add_number, ShardCache
def deadly(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], deadly)
add_number(ShardCache(Path(sys.argv[1]), 30), 99)
"""


@pytest.mark.parametrize("function", ["ftruncate", "unlink", "rename", "pwrite"])
def test_a_kill_during_an_addition_leaves_a_usable_cache(tmp_path: Path, function: str) -> None:
    cache = ShardCache(tmp_path, 30)
    for number in range(3):
        add_number(cache, number)
    program = [sys.executable, "-c", KILLED, str(tmp_path), function]
    assert subprocess.run(program, env=ENVIRONMENT, check=False).returncode == -signal.SIGKILL
    for number in (5, 6, 7):
        newest = add_number(cache, number)
        assert cache.get(newest, COPY_BYTES)
        assert_total_is_that_of_the_folder(cache)
