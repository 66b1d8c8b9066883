"""The cache's index: equal to the folder, through concurrent adds, kills and damage."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_pipeline.storage.cache_index import (
    _HEADER,
    _HEADER_BYTES,
    _RECORD_BYTES,
    MIN_ADDS_BETWEEN_REBUILDS,
    CacheIndex,
    _unpack,
)
from data_pipeline.storage.shard_cache import LOCK_NAME, ShardCache

COPY_BYTES = 10
# For child processes, which import this module.
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parent)])
}


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def content(number: int) -> bytes:
    return f"{number:0{COPY_BYTES}}".encode()


def add(cache: ShardCache, number: int) -> str:
    sha256 = sha256_of(content(number))
    cache.add(sha256, content(number))
    return sha256


def copies(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if len(path.name) == 64]


def indexed_bytes(folder: Path) -> int:
    """Total size according to the index, without a rebuild."""
    return int(_unpack(_HEADER, (folder / LOCK_NAME).read_bytes()[:_HEADER_BYTES])[2])


def assert_equal_to_folder(cache: ShardCache) -> None:
    sizes = [path.stat().st_size for path in copies(cache.folder)]
    assert sizes == [COPY_BYTES] * len(sizes)
    assert indexed_bytes(cache.folder) == sum(sizes) <= cache.max_bytes


LISTED: list[str] = []
_listening = False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _listening and event in ("os.listdir", "os.scandir"):
        LISTED.append(str(arguments[0]))


sys.addaudithook(_audit)


@contextmanager
def counted_listings() -> Iterator[list[str]]:
    """Record the folders that this process lists."""
    global _listening  # an audit hook cannot be removed
    LISTED.clear()
    _listening = True
    try:
        yield LISTED
    finally:
        _listening = False


def test_the_folder_is_listed_once_per_as_many_adds_as_it_has_copies(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 10**6)
    adds = 3 * MIN_ADDS_BETWEEN_REBUILDS
    with counted_listings() as listings:
        for number in range(adds):
            add(cache, number)
    # After 0, 1,000 and 2,000 adds; the next one is due after 4,000.
    assert listings.count(str(tmp_path)) == 3
    assert_equal_to_folder(cache)
    assert len(copies(tmp_path)) == adds


def test_the_index_stays_small_while_copies_come_and_go(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 5 * COPY_BYTES)
    for number in range(2 * MIN_ADDS_BETWEEN_REBUILDS + 10):
        add(cache, number)
    assert (tmp_path / LOCK_NAME).stat().st_size < 2 * MIN_ADDS_BETWEEN_REBUILDS * _RECORD_BYTES
    assert len(copies(tmp_path)) == 5
    assert_equal_to_folder(cache)


def test_a_copy_that_was_read_outlives_older_and_newer_ones(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 3 * COPY_BYTES)
    read, *others = (add(cache, number) for number in range(3))
    for number in range(3, 20):
        os.utime(tmp_path / read)
        others.append(add(cache, number))
        assert cache.get(read, COPY_BYTES) == content(0)
    assert {path.name for path in copies(tmp_path)} == {read, *others[-2:]}


def test_two_processes_add_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from test_cache_index import add, ShardCache\n"
        "cache = ShardCache(Path(sys.argv[1]), 400)\n"
        "for number in range(int(sys.argv[2]), int(sys.argv[2]) + 1500): add(cache, number)\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), first],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])},
        )
        for first in ("0", "1000")
    ]
    assert [child.wait(60) for child in children] == [0, 0]
    cache = ShardCache(tmp_path, 400)
    assert_equal_to_folder(cache)
    # Both have added the numbers from 1,000 to 1,499, so a few records may be duplicates.
    assert 35 <= len(copies(tmp_path)) <= 40
    assert {path.name for path in tmp_path.iterdir()} - {p.name for p in copies(tmp_path)} == {
        LOCK_NAME
    }


KILLED = """
import os, signal, sys
from pathlib import Path
from test_cache_index import add, ShardCache
function, calls = sys.argv[2], int(sys.argv[3])
original = getattr(os, function)
def deadly(*arguments, **options):
    global calls
    calls -= 1
    if not calls:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)
setattr(os, function, deadly)
add(ShardCache(Path(sys.argv[1]), 30), 99)
"""


@pytest.mark.parametrize(
    ("function", "calls"),
    [("pwrite", 1), ("pwrite", 2), ("pwrite", 3), ("rename", 1), ("unlink", 1)],
)
def test_a_process_that_is_killed_while_it_adds(tmp_path: Path, function: str, calls: int) -> None:
    cache = ShardCache(tmp_path, 30)
    for number in range(3):
        add(cache, number)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), function, str(calls)],
        env=ENVIRONMENT,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    newest = add(cache, 5)
    assert cache.get(newest, COPY_BYTES) == content(5)
    assert_equal_to_folder(cache)
    add(cache, 6)
    assert_equal_to_folder(cache)


def _flip(position: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",  # an earlier version has added a file
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\0" * len(data),
        _flip(8),
        _flip(_HEADER_BYTES - 10),
        _flip(_HEADER_BYTES + 3),  # the record that is evicted next
        lambda data: data[:_HEADER_BYTES] + b"\xff" * (len(data) - _HEADER_BYTES),
    ],
)
def test_a_damaged_index_is_rebuilt(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    cache = ShardCache(tmp_path, 30)
    names = [add(cache, number) for number in range(3)]
    for age, name in enumerate(reversed(names)):
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    index = tmp_path / LOCK_NAME
    index.write_bytes(damage(index.read_bytes()))
    names.append(add(cache, 3))
    assert_equal_to_folder(cache)
    assert {path.name for path in copies(tmp_path)} == set(names[1:])


def test_copies_that_the_index_does_not_know_are_found_by_a_rebuild(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 30)
    add(cache, 0)
    for number in range(1, 10):  # by another program, without the index
        (tmp_path / sha256_of(content(number))).write_bytes(content(number))
    for number in range(10, 10 + MIN_ADDS_BETWEEN_REBUILDS):
        add(cache, number)
    assert len(copies(tmp_path)) == 3
    assert_equal_to_folder(cache)


def test_copies_that_were_removed_leave_the_total(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 30)
    names = [add(cache, number) for number in range(3)]
    for name in names[:2]:
        (tmp_path / name).unlink()
    names += [add(cache, number) for number in (3, 4)]
    assert {path.name for path in copies(tmp_path)} == set(names[2:])
    assert_equal_to_folder(cache)


def test_an_index_is_opened_without_a_change(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 30)
    add(cache, 0)
    before = (tmp_path / LOCK_NAME).read_bytes()
    descriptor = os.open(tmp_path / LOCK_NAME, os.O_RDWR)
    try:
        with counted_listings() as listings:
            CacheIndex.open(tmp_path, descriptor)
    finally:
        os.close(descriptor)
    assert (tmp_path / LOCK_NAME).read_bytes() == before
    assert str(tmp_path) not in listings
