"""Fetches of a node: one request per file, ahead of its use, despite failures and kills."""

import hashlib
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.cluster.processes import HANG_SECONDS
from support.files.faulty_server import Fault, FaultyServer

from data_pipeline.batching.window import WindowReader
from data_pipeline.config.data import DataSettings
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.errors import DatasetFileError
from data_pipeline.storage import shard_cache
from data_pipeline.storage import store as store_module
from data_pipeline.storage.shard_cache import ShardCache
from data_pipeline.storage.store import RemoteStore, open_store

rng = random.Random(5)
FILES = {f"shards/train-{number:05}.tar": rng.randbytes(5000 + number) for number in range(20)}
SHA256 = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
LIST = [(name, SHA256[name], len(data)) for name, data in FILES.items()]
FIRST = LIST[0]
DELAYS = (0.001,) * 4


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    (tmp_path / "d" / "shards").mkdir(parents=True)
    for name, data in FILES.items():
        (tmp_path / "d" / name).write_bytes(data)
    with FaultyServer(tmp_path / "d") as server:
        yield server


@pytest.fixture
def store(server: FaultyServer, tmp_path: Path) -> RemoteStore:
    return RemoteStore(server.url, ShardCache(tmp_path / "cache", 10**7), DELAYS)


def _read_all(store: RemoteStore, seed: int) -> bool:
    """Read all files in an order that depends on the seed, and return whether they are right."""
    files = random.Random(seed).sample(LIST, len(LIST))
    return list(store.read_many(files)) == [FILES[name] for name, _, _ in files]


def test_processes_of_a_node_make_one_request_per_file(
    server: FaultyServer, store: RemoteStore
) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert all(pool.starmap(_read_all, [(store, seed) for seed in range(6)], chunksize=1))
    assert server.requests == dict.fromkeys(FILES, 1)


def test_each_failure_causes_one_more_request(server: FaultyServer, store: RemoteStore) -> None:
    server.fail(Fault.RESET, on={1})
    server.fail(Fault.BIT_FLIP, FIRST[0], on={2, 3})
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(_read_all, [store] * 4, range(4)))
    assert server.requests == dict.fromkeys(FILES, 2) | {FIRST[0]: 4}


def test_the_error_of_a_lost_file_is_raised_in_the_order_of_the_files(
    server: FaultyServer, store: RemoteStore
) -> None:
    lost = [LIST[number][0] for number in (7, 3)]
    for name in lost:
        server.fail(Fault.NOT_FOUND, name)
    contents = store.read_many(LIST)
    assert [next(contents) for _ in range(3)] == list(FILES.values())[:3]
    with pytest.raises(DatasetFileError) as caught:
        next(contents)
    assert caught.value.file == lost[1]
    assert caught.value.expected.startswith("5,003 bytes")


def test_files_are_fetched_in_parallel_within_the_limit_of_bytes(
    server: FaultyServer, store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_BYTES_AHEAD", 5 * 5020)
    requested = threading.Semaphore(0)
    answer = threading.Event()
    note_request = server.note_request

    def held(name: str) -> Fault | None:
        requested.release()
        assert answer.wait(HANG_SECONDS)
        return note_request(name)

    monkeypatch.setattr(server, "note_request", held)
    with ThreadPoolExecutor(1) as pool:
        contents = pool.submit(lambda: list(store.read_many(LIST)))
        for _ in range(5):
            assert requested.acquire(timeout=HANG_SECONDS)
        assert not requested.acquire(timeout=0.2)
        answer.set()
        assert contents.result(HANG_SECONDS) == list(FILES.values())


def test_a_file_above_the_limit_of_bytes_is_fetched_alone(
    store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_BYTES_AHEAD", 1)
    assert list(store.read_many(LIST)) == list(FILES.values())
    assert list(store.read_many([])) == []


def _hold(cache: ShardCache, sha256: str, held: "multiprocessing.synchronize.Event") -> None:
    with cache.fetching(sha256):
        held.set()
        time.sleep(HANG_SECONDS)


@pytest.fixture
def holder(store: RemoteStore) -> Iterator[int]:
    """Yield the id of a process that fetches the first file and never ends."""
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(store._cache, FIRST[1], held))
    process.start()
    assert held.wait(HANG_SECONDS)
    assert process.pid
    yield process.pid
    process.kill()
    process.join()


def test_a_fetch_of_a_killed_process_is_repeated(
    holder: int, server: FaultyServer, store: RemoteStore
) -> None:
    with ThreadPoolExecutor(1) as pool:
        content = pool.submit(store.read, *FIRST)
        assert store.read(*LIST[1]) == FILES[LIST[1][0]]
        assert not content.done()
        assert FIRST[0] not in server.requests
        os.kill(holder, signal.SIGKILL)
        assert content.result(HANG_SECONDS) == FILES[FIRST[0]]


def test_a_reader_does_not_wait_forever_for_a_suspended_process(
    holder: int, store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_cache, "FETCH_WAIT_SECONDS", 0.1)
    os.kill(holder, signal.SIGSTOP)
    assert store.read(*FIRST) == FILES[FIRST[0]]


def test_without_a_cache_folder_no_process_is_locked_out(holder: int, server: FaultyServer) -> None:
    store = RemoteStore(server.url, ShardCache(Path("/proc/none"), 10**7), DELAYS)
    assert store.read(*FIRST) == FILES[FIRST[0]]
    assert holder


def test_windows_over_http_equal_those_of_the_folder_with_one_request_per_shard(
    dataset: Path, data_settings: Callable[..., DataSettings], tmp_path: Path
) -> None:
    def pair_ids(reader: WindowReader) -> list[list[int]]:
        return [
            batch.pair_ids.tolist()
            for window in range(reader.layout(0, 0).windows_per_epoch)
            for batch in reader.fetch(0, window, 0, len(reader.layout(0, window).units))
        ]

    settings = data_settings(dataset)
    local = open_store(dataset)
    manifest = Manifest.load(local)
    with FaultyServer(dataset) as server:
        server.fail_randomly(0.2, 1, (Fault.UNAVAILABLE, Fault.TRUNCATED, Fault.BIT_FLIP))
        store = RemoteStore(server.url, ShardCache(tmp_path, 10**7), (0.001,) * 9)
        with ThreadPoolExecutor(2) as pool:  # like two data workers of a node
            readers = [WindowReader(store, manifest, settings, cache_bytes=0) for _ in range(2)]
            results = list(pool.map(pair_ids, readers))
        assert results == [pair_ids(WindowReader(local, manifest, settings))] * 2
        assert server.requests.total() == len(manifest.shards) + server.faults.total()
