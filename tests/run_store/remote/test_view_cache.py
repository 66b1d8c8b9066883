"""The cache of views has a size limit; copies that are being refreshed are not evicted."""

import fcntl
import os

import pytest

from run_store.errors import RunMismatchError
from run_store.remote import view_cache
from run_store.remote.view_cache import LOCK, ViewCache, locked


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    monkeypatch.setattr(view_cache, "MAX_CACHE_BYTES", 1000)


def copy_of(folder, name, size, refreshed):
    copy = folder / "0123" / name
    copy.mkdir(parents=True)
    (copy / "metrics.jsonl").write_bytes(bytes(size))
    with locked(copy):
        pass
    os.utime(copy / LOCK, (refreshed, refreshed))
    return copy


def test_the_least_recently_refreshed_copies_are_evicted_first(tmp_path):
    newer, older, oldest = (
        copy_of(tmp_path, name, 400, refreshed)
        for name, refreshed in (("a", 3.0), ("b", 2.0), ("c", 1.0))
    )
    cache = ViewCache(tmp_path)
    cache.reserve(tmp_path / "0123" / "new", 300)
    assert [copy.exists() for copy in (newer, older, oldest)] == [True, False, False]


def test_no_copy_is_evicted_while_the_cache_has_room(tmp_path):
    copies = [copy_of(tmp_path, name, 300, 1.0) for name in "abc"]
    ViewCache(tmp_path).reserve(tmp_path / "0123" / "new", 100)
    assert all(copy.exists() for copy in copies)


def test_a_copy_that_is_being_refreshed_is_not_evicted(tmp_path):
    copy = copy_of(tmp_path, "a", 900, 1.0)
    with (copy / LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunMismatchError, match="more than 1,000 bytes with 500 bytes for new"):
            ViewCache(tmp_path).reserve(tmp_path / "0123" / "new", 500)
    assert (copy / "metrics.jsonl").exists()


def test_copies_reserved_by_this_process_are_not_evicted(tmp_path):
    cache, first = ViewCache(tmp_path), copy_of(tmp_path, "first", 600, 1.0)
    cache.reserve(first, 600)
    with pytest.raises(RunMismatchError, match="Name one run"):
        cache.reserve(tmp_path / "0123" / "second", 500)
    cache.reserve(first, 700)
    cache.reserve(tmp_path / "0123" / "third", 300)
    assert first.exists()
