"""Stores return the right bytes, or an error that names the file, whatever server or disk does."""

import hashlib
import logging
import multiprocessing
import os
import pickle
import random
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from support.cluster.processes import HANG_SECONDS
from support.files.faulty_server import MODEST, Fault, FaultyServer
from support.quality import memory

from data_pipeline.errors import DatasetError, DatasetFileError
from data_pipeline.storage import remote
from data_pipeline.storage import store as store_module
from data_pipeline.storage.shard_cache import ShardCache
from data_pipeline.storage.store import DatasetStore, LocalStore, RemoteStore, open_store
from foundation.errors import LocationError

SHARD = "shards/train-00000.tar"
DELAYS = (0.001, 0.001, 0.001)
rng = random.Random(7)
FILES = {f"shards/train-{number:05}.tar": rng.randbytes(20_000 + number) for number in range(12)}
FILES |= {"tokenizer.model": b"pieces", "manifest.json": b'{"format": 1}'}
SHA256 = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}


def write_files(folder: Path) -> Path:
    (folder / "shards").mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that tests must not change."""
    return write_files(tmp_path_factory.mktemp("datasets") / "d")


@pytest.fixture
def server(folder: Path) -> Iterator[FaultyServer]:
    with FaultyServer(folder) as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache" / "shards", 10_000_000)


@pytest.fixture
def store(server: FaultyServer, cache: ShardCache) -> RemoteStore:
    return RemoteStore(server.url, cache, DELAYS)


def read(store: DatasetStore, name: str = SHARD) -> bytes:
    return store.read(name, SHA256[name], len(FILES[name]))


def failure_of(store: DatasetStore, name: str = SHARD) -> DatasetFileError:
    with pytest.raises(DatasetFileError) as caught:
        read(store, name)
    return caught.value


# Places of a dataset


@pytest.mark.parametrize("form", ["path", "text", "file URL", "server", "server with slash"])
def test_a_dataset_reads_the_same_from_every_kind_of_location(
    form: str, folder: Path, server: FaultyServer, tmp_path: Path
) -> None:
    location = {
        "path": folder,
        "text": f"{folder}/",
        "file URL": f"file://{folder}",
        "server": server.url,
        "server with slash": server.url + "/",
    }[form]
    store = open_store(location, cache=tmp_path)
    assert store.location == (server.url if "server" in form else str(folder))
    assert store.read_manifest() == FILES["manifest.json"]
    assert {name: read(store, name) for name in FILES} == FILES
    assert store.read(SHARD, SHA256[SHARD]) == FILES[SHARD]


def test_names_with_non_ascii_letters_reach_the_server(folder: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "with space" / "d")
    (tmp_path / "with space" / "d" / "größe.txt").write_bytes(b"x")
    with FaultyServer(tmp_path) as server:
        store = open_store(f"{server.url}/with space/d", cache=tmp_path / "cache")
        assert store.read("größe.txt", hashlib.sha256(b"x").hexdigest(), 1) == b"x"


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("ftp://host/d", "scheme 'ftp', expected one of file, http, https, s3, gs, az"),
        ("s3://bucket/d?versionId=1", r"Expected s3://BUCKET/PREFIX without a query"),
        ("s3://bucket/d#1", "'#' begins a query or fragment"),
        ("s3://bucket//d", "two slashes in a row"),
        ("s3:///d", "no valid name of a bucket"),
    ],
)
def test_locations_that_cannot_be_read_are_refused(location: str, message: str) -> None:
    with pytest.raises((DatasetError, LocationError), match=message):
        open_store(location)


def test_the_cache_is_in_the_user_s_cache_folder_by_default(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSLOOM_CACHE", str(tmp_path))
    read(open_store(server.url))
    assert (tmp_path / "shards" / SHA256[SHARD]).read_bytes() == FILES[SHARD]


# Wrong sizes


@pytest.mark.parametrize("fault", [Fault.ENDLESS, Fault.BOMB])
def test_a_server_that_sends_more_than_the_size_in_the_manifest_is_refused(
    fault: Fault, server: FaultyServer, store: RemoteStore, cache: ShardCache
) -> None:
    server.fail(fault, file=SHARD)
    with memory.at_most(30_000_000):
        assert failure_of(store).args == (SHARD, "20,000 bytes", "at least 20,001 bytes")
    assert not list(cache.folder.glob("?" * 64))
    assert server.requests == {SHARD: 1 + len(DELAYS)}


def test_compressed_encodings_are_not_requested(server: FaultyServer, store: RemoteStore) -> None:
    """The server sends the content unchanged."""
    read(store)
    assert server.headers[SHARD]["Accept-Encoding"] == "identity"


def test_a_size_above_the_limit_in_a_manifest_is_refused(
    server: FaultyServer, store: RemoteStore, folder: Path
) -> None:
    for each in (store, LocalStore(folder)):
        with pytest.raises(DatasetFileError) as caught:
            each.read(SHARD, SHA256["tokenizer.model"], 10**15)
        assert caught.value.expected == "at most 2,147,483,648 bytes in a shard"
        assert caught.value.found == "1,000,000,000,000,000 in the manifest"
    assert not server.requests


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.model"])
def test_files_without_a_size_have_a_limit(
    name: str, server: FaultyServer, store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for budget in ("MANIFEST", "SMALL_FILE"):
        limited = replace(getattr(store_module, budget), limit=1000)
        monkeypatch.setattr(store_module, budget, limited)
    server.fail(Fault.ENDLESS)
    found = r"expected at most 1,000 bytes in a .*, found at least 1,001 bytes\."
    with memory.at_most(30_000_000), pytest.raises(DatasetError, match=found):
        store.read_manifest() if name == "manifest.json" else store.read(name, SHA256[name])


def test_a_file_that_has_grown_is_not_read(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "d")
    os.truncate(folder / SHARD, 10**11)
    os.truncate(folder / "manifest.json", 10**11)
    with memory.at_most(1_000_000):
        assert failure_of(LocalStore(folder, ())).args[1:] == (
            "20,000 bytes",
            "100,000,000,000 bytes",
        )
        with pytest.raises(DatasetError, match="found 100,000,000,000 bytes"):
            LocalStore(folder).read_manifest()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_special_files_are_refused_unread(make: Callable[[Path], None], tmp_path: Path) -> None:
    folder = write_files(tmp_path / "d")
    (folder / SHARD).unlink()
    make(folder / SHARD)
    assert failure_of(LocalStore(folder, ())).found.endswith(", expected a regular file)")


# Folders


def test_a_missing_file_of_a_folder_is_reported(folder: Path) -> None:
    with pytest.raises(DatasetFileError) as caught:
        LocalStore(folder, DELAYS).read("shards/x.tar", SHA256[SHARD], 1234)
    assert caught.value.args == (
        "shards/x.tar",
        f"1,234 bytes in {folder}",
        "no readable file (No such file or directory)",
    )


def test_a_wrong_file_of_a_folder_is_reported_with_expected_content(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "d")
    store = LocalStore(folder, DELAYS)
    (folder / SHARD).write_bytes(b"?" * len(FILES[SHARD]))
    assert failure_of(store).args == (
        SHARD,
        f"sha256 {SHA256[SHARD]}",
        f"sha256 {hashlib.sha256(b'?' * len(FILES[SHARD])).hexdigest()}",
    )
    (folder / SHARD).write_bytes(FILES[SHARD][:-1])
    assert failure_of(store).args == (SHARD, "20,000 bytes", "19,999 bytes")


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_folder_that_fails_briefly_is_read_again(
    before: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_files(tmp_path / "d")
    if before is None:
        (folder / SHARD).unlink()
    else:
        (folder / SHARD).write_bytes(before)
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            (folder / SHARD).write_bytes(FILES[SHARD])

    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=wait))
    assert read(LocalStore(folder)) == FILES[SHARD]
    assert len(waits) == 2


def test_a_folder_without_a_manifest_is_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=waits.append))
    with pytest.raises(DatasetError, match=r"no prepared dataset at .*No such file.*prepare"):
        open_store(tmp_path).read_manifest()
    assert waits == []


# Servers


@pytest.mark.parametrize("fault", Fault)
def test_a_transient_fault_costs_one_more_request(
    fault: Fault, server: FaultyServer, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RemoteStore(server.url, cache, DELAYS)
    wait_out(fault, monkeypatch)
    server.fail(fault, on={1})
    assert read(store) == FILES[SHARD]
    assert server.requests == {SHARD: 2}
    assert server.faults == {fault: 1}


def wait_out(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the wait for a stall; for other faults, a busy machine may be slow."""
    if fault is Fault.STALL:
        monkeypatch.setattr(remote, "STALL_TIMEOUT_SECONDS", 0.5)


WHOLE_FILE = r"20,000 bytes in http://127\.0\.0\.1:\d+"


@pytest.mark.parametrize(
    ("fault", "expected", "found"),
    [
        (Fault.INTERNAL_ERROR, WHOLE_FILE, r"no readable file \(.*500"),
        (Fault.UNAVAILABLE, WHOLE_FILE, r"no readable file \(.*503"),
        (Fault.FORBIDDEN, WHOLE_FILE, r"no readable file \(.*403.*Forbidden"),
        (Fault.NOT_FOUND, WHOLE_FILE, r"no readable file \(404, not found\)"),
        (Fault.RESET, WHOLE_FILE, r"no readable file \(Client.*(reset|completed)"),
        (Fault.TRUNCATED, WHOLE_FILE, r"no readable file \(ClientPayloadError"),
        (Fault.STALL, WHOLE_FILE, r"no readable file \(.*Timeout"),
        (Fault.SHORT, "20,000 bytes", "10,000 bytes"),
        (Fault.BIT_FLIP, f"sha256 {SHA256[SHARD]}", "sha256 [0-9a-f]{64}"),
    ],
)
def test_a_lasting_fault_is_an_error_with_the_reason(
    fault: Fault,
    expected: str,
    found: str,
    server: FaultyServer,
    cache: ShardCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = RemoteStore(server.url, cache, DELAYS)
    wait_out(fault, monkeypatch)
    server.fail(fault, file=SHARD)
    error = failure_of(store)
    assert error.file == SHARD
    assert re.fullmatch(expected, error.expected)
    assert re.match(found, error.found)
    assert server.requests == {SHARD: 1 + len(DELAYS)}
    assert read(store, "tokenizer.model") == b"pieces"
    server.heal()
    assert read(store) == FILES[SHARD]


def test_a_server_that_has_ended_is_reported(folder: Path, cache: ShardCache) -> None:
    with FaultyServer(folder) as server:
        store = RemoteStore(server.url, cache, DELAYS)
    assert "Cannot connect to host" in failure_of(store).found


def test_an_unaccepted_connection_fails(cache: ShardCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backlog of the socket is full, so further connections are not answered."""
    monkeypatch.setattr(remote, "CONNECT_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        port = deaf.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            store = RemoteStore(f"http://127.0.0.1:{port}", cache, ())
            assert "ConnectionTimeoutError" in failure_of(store).found
            connections = fsspec.get_filesystem_class("http").current()  # the last one used
            assert connections.client_kwargs["timeout"].connect == 0.1


def test_a_slow_server_is_read_to_the_end(folder: Path, cache: ShardCache) -> None:
    with FaultyServer(folder, stall_seconds=0.3) as server:
        server.fail(Fault.STALL)
        store = RemoteStore(server.url, cache, ())
        assert read(store) == FILES[SHARD]


def test_random_faults_of_a_server_are_retried(server: FaultyServer, cache: ShardCache) -> None:
    server.fail_randomly(0.5, seed=3, faults=set(MODEST) - {Fault.STALL})
    store = RemoteStore(server.url, cache, (0.001,) * 20)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda name: read(store, name), FILES)) == list(FILES.values())
    assert len(server.faults) > 4
    assert server.requests.total() == len(FILES) + server.faults.total()


def test_a_remote_manifest_is_retried_and_never_cached(
    server: FaultyServer, store: RemoteStore, cache: ShardCache
) -> None:
    server.fail(Fault.UNAVAILABLE, on={1, 2, 3})
    assert store.read_manifest() == store.read_manifest() == FILES["manifest.json"]
    assert server.requests == {"manifest.json": 5}
    assert not cache.folder.exists()
    server.fail(Fault.NOT_FOUND)
    with pytest.raises(DatasetError, match=r"no prepared dataset at http.*404.*prepare.*data\.d"):
        store.read_manifest()


def test_retry_delays_grow_and_vary_randomly(
    server: FaultyServer,
    cache: ShardCache,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=waits.append))
    server.fail(Fault.UNAVAILABLE)
    for _ in range(5):
        failure_of(RemoteStore(server.url, cache, (0.2, 0.8)))
    assert all(0.1 <= wait <= 0.3 for wait in waits[::2])
    assert all(0.4 <= wait <= 1.2 for wait in waits[1::2])
    assert len(set(waits)) == 10
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 10
    assert re.search(rf"Retrying {SHARD} of .* in 0\.\d s: expected 20,000 bytes", caplog.text)


# Processes and threads


def test_a_store_can_be_pickled(store: RemoteStore, folder: Path) -> None:
    for original in (store, LocalStore(folder)):
        copy = pickle.loads(pickle.dumps(original))  # noqa: S301 - made in this line
        assert read(copy) == FILES[SHARD]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_can_read_from_the_store(server: FaultyServer, store: RemoteStore) -> None:
    """At the fork, the parent's connections are open and its event loop runs."""
    read(store)
    name = "shards/train-00001.tar"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert pool.submit(store.read, name, SHA256[name]).result(HANG_SECONDS) == FILES[name]
    assert read(store, "shards/train-00002.tar") == FILES["shards/train-00002.tar"]
    assert server.requests.total() == 3


@pytest.mark.long
def test_processes_share_a_cache_that_is_too_small(server: FaultyServer, tmp_path: Path) -> None:
    """The cache has space for a quarter of the files, so processes evict each other's files."""
    bound = 70_000
    store = open_store(server.url, cache=tmp_path, cache_bytes=bound)
    shards = [name for name in FILES if name.startswith("shards/")]
    requests = [rng.choice(shards) for _ in range(400)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=spawn) as pool:
        sha256s = [SHA256[name] for name in requests]
        answers = list(pool.map(store.read, requests, sha256s, chunksize=10))
    assert answers == [FILES[name] for name in requests]
    assert 0 < server.requests.total() < len(requests)
    kept = [path for path in (tmp_path / "shards").iterdir() if path.is_file()]
    kept.remove(tmp_path / "shards" / ".lock")
    assert {path.name for path in kept} <= set(SHA256.values())
    assert sum(path.stat().st_size for path in kept) <= bound


# The cache


def test_a_cached_file_needs_no_request(server: FaultyServer, store: RemoteStore) -> None:
    assert read(store) == read(store) == FILES[SHARD]
    assert server.requests == {SHARD: 1}


def test_datasets_share_cached_files(server: FaultyServer, folder: Path, cache: ShardCache) -> None:
    read(RemoteStore(server.url, cache))
    with FaultyServer(folder) as other:
        assert read(RemoteStore(other.url, cache)) == FILES[SHARD]
        assert not other.requests


@pytest.mark.parametrize("damage", [b"", b"?" * 20_000, FILES[SHARD][:-1]])
def test_a_damaged_cached_copy_is_fetched_again(
    damage: bytes, server: FaultyServer, store: RemoteStore, cache: ShardCache
) -> None:
    read(store)
    (cache.folder / SHA256[SHARD]).write_bytes(damage)
    assert read(store) == FILES[SHARD]
    assert server.requests == {SHARD: 2}
    assert read(store) == FILES[SHARD]
    assert server.requests == {SHARD: 2}


def test_wrong_bytes_never_enter_the_cache(
    server: FaultyServer, store: RemoteStore, cache: ShardCache
) -> None:
    server.fail(Fault.BIT_FLIP)
    failure_of(store)
    assert not list(cache.folder.glob("?" * 64))


def test_a_cache_that_cannot_be_written_does_not_end_the_run(
    server: FaultyServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = RemoteStore(server.url, ShardCache(tmp_path / "file" / "shards", 10_000_000))
    assert [read(store, name) for name in FILES] == list(FILES.values())
    assert len(caplog.records) == 1
    assert "cannot be kept in the cache" in caplog.text
    assert "Not a directory" in caplog.text
