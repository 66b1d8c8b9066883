"""State files in an object store: the same numbers as on disk, and damage is detected."""

import hashlib
import io
import json
import random
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from support.records.checkpoints import make_header, save_checkpoint

from data_pipeline.storage.object_errors import ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from foundation.location import Location
from run_store.checkpoints import state_objects
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.format import HEADER
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.reader import CheckpointReader
from run_store.checkpoints.state_file import FileRecord
from run_store.checkpoints.state_objects import (
    PARTS,
    PartList,
    StateObjects,
    UploadedFile,
    part_name,
    read_parts,
    upload_state_file,
)
from run_store.errors import CheckpointError, DamagedCheckpointError
from run_store.run_copies import register_copy

SIZES = {"v": 5000, "w": 12_000, "x": 3}
CHUNK = 4096


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(state_objects, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(state_objects, "CHUNKS_PER_PART", 3)
    monkeypatch.setattr(state_objects, "PART_BYTES", 3 * CHUNK)


@pytest.fixture
def local(tmp_path):
    """Save a checkpoint of two ranks on disk, and return it."""
    tensors = {name: torch.randn(size) for name, size in SIZES.items()}
    header = make_header(10, parameters={name: [size] for name, size in SIZES.items()})
    shares = [
        [
            Fragment("master", name, 0, tensor[: len(tensor) // 3])
            for name, tensor in tensors.items()
        ],
        [
            Fragment("master", name, len(tensor) // 3, tensor[len(tensor) // 3 :])
            for name, tensor in tensors.items()
        ],
    ]
    return save_checkpoint(tmp_path / "local" / "checkpoints", header, shares)


@pytest.fixture
def remote(local, tmp_path, s3_server, s3_environment):
    """Upload the checkpoint; return its store and a local folder that refers to the store."""
    url = Location(f"{s3_server.bucket('states')}/run/owners/00000001/{local.path.name}")
    store = ObjectStore(url)
    files = [
        upload_state_file(store, local.path / record.name, record) for record in local.header.files
    ]
    folder = tmp_path / "remote" / local.path.name
    folder.mkdir(parents=True)
    register_copy(folder.parent, url.partition("/owners/")[0])
    shutil.copy(local.path / HEADER, folder)
    (folder / PARTS).write_bytes(PartList(url=url, files=files).to_json())
    return store, folder


def test_any_range_read_from_the_store_equals_that_on_disk(local, remote):
    ours, theirs = CheckpointReader(Checkpoint(remote[1])), CheckpointReader(local)
    draw = random.Random(1)
    for _ in range(50):
        name = draw.choice(list(SIZES))
        start, stop = sorted(draw.randint(0, SIZES[name]) for _ in range(2))
        found = ours.read("master", name, start, stop)
        assert torch.equal(found, theirs.read("master", name, start, stop))
    assert Checkpoint(remote[1]).header == local.header
    Checkpoint(remote[1]).verify()


def test_a_reader_fetches_only_the_chunks_of_its_range(remote, monkeypatch):
    fetched = []
    get_range = ObjectStore.get_range

    def counted(self, name, start, stop):
        fetched.append((name, start, stop))
        return get_range(self, name, start, stop)

    monkeypatch.setattr(ObjectStore, "get_range", counted)
    reader = CheckpointReader(Checkpoint(remote[1]))
    fetched.clear()
    reader.read("master", "w", 0, 100)  # this range is in the first file
    reader.read("master", "w", 0, 100)  # now it is in the cache
    whole = sum(stop - start for _, start, stop in fetched)
    assert {name.partition("/")[0] for name, *_ in fetched} == {"state-00000-of-00002.safetensors"}
    assert whole <= 4000 * 4 + 2 * CHUNK


@pytest.mark.parametrize("damage", ["flipped", "short", "missing"])
def test_damage_in_the_store_is_detected_and_named(remote, damage):
    store, folder = remote
    name = part_name("state-00001-of-00002.safetensors", 1)
    data = bytearray(store.get(name, 10**6).data)
    if damage == "flipped":
        data[17] ^= 1
        store.put(name, bytes(data))
    elif damage == "short":
        store.put(name, bytes(data[:-1]))
    else:
        store.delete([name])
    checkpoint = Checkpoint(folder)
    checkpoint.verify_sizes()  # passes, because it does not read the files
    for read in (checkpoint.verify, lambda: CheckpointReader(Checkpoint(folder)).check_numbers()):
        with pytest.raises((CheckpointError, OSError), match=f"{store.url}/{name}") as caught:
            read()
        assert isinstance(caught.value, DamagedCheckpointError) == (damage != "short")


def test_a_part_list_that_does_not_cover_its_files_is_refused(remote):
    folder = remote[1]
    parts = read_parts(folder)
    values = parts.model_dump(mode="json")
    values["files"][0]["chunks"].pop()
    (folder / PARTS).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=rf"{PARTS} is damaged: files\.0.*chunks"):
        Checkpoint(folder).verify_sizes()


def test_a_header_contains_no_hashes_of_chunks(local):
    """The header has the same format as that of a checkpoint on disk."""
    (record, _) = local.header.files
    chunks = ["0" * 64] * -(-record.bytes // CHUNK)
    uploaded = UploadedFile(**record.model_dump(), chunks=chunks)
    header = local.header.model_copy(update={"files": [uploaded]})
    assert "chunks" not in header.to_json()
    assert Path(local.path / HEADER).exists()


def test_a_resumed_upload_stores_only_parts_that_are_missing_or_differ_in_size(
    local, tmp_path, s3_server, s3_environment
):
    store = ObjectStore(Location(f"{s3_server.bucket('resumed')}/step"))
    record = local.header.files[1]
    path = local.path / record.name
    names = [part_name(record.name, number) for number in range(-(-record.bytes // (3 * CHUNK)))]
    assert len(names) >= 4
    content = [path.read_bytes()[start : start + 3 * CHUNK] for start in range(0, 10**6, 3 * CHUNK)]
    store.put(names[0], content[0])
    store.put(names[1], content[1][:-1])
    store.put(names[2], content[2] + b"1")
    there = {part.name: part.bytes for part in store.list()}
    puts, reported = [], []
    put = store.put
    store.put = lambda name, part: (puts.append(name), put(name, part))
    uploaded = upload_state_file(store, path, record, there, reported.append)
    assert sorted(puts) == names[1:]
    assert sum(reported) == record.bytes
    assert [store.get(name, 10**6).data for name in names] == content[: len(names)]
    assert len(uploaded.chunks) == -(-record.bytes // CHUNK)


def test_a_failed_read_is_repeated_at_the_next_call(remote, monkeypatch):
    get_range = ObjectStore.get_range
    reader = CheckpointReader(Checkpoint(remote[1]))

    def fail(*_):
        raise ObjectStoreError("the store is away")

    for _ in range(2):
        monkeypatch.setattr(ObjectStore, "get_range", fail)
        with pytest.raises(OSError, match="the store is away"):
            reader.read("master", "w", 0, SIZES["w"])
        monkeypatch.setattr(ObjectStore, "get_range", get_range)
    assert len(reader.read("master", "w", 0, SIZES["w"])) == SIZES["w"]


def test_no_more_than_the_limit_of_chunks_is_cached(remote, monkeypatch):
    monkeypatch.setattr(state_objects, "CACHED_CHUNKS", 2)
    monkeypatch.setattr(state_objects, "CHUNKS_IN_FLIGHT", 1)
    objects = StateObjects(read_parts(remote[1]))
    name = part_name("state-00001-of-00002.safetensors", 0).partition("/")[0]
    fetched = []
    fetch = objects._fetch
    monkeypatch.setattr(objects, "_fetch", lambda *chunk: (fetched.append(chunk), fetch(*chunk))[1])
    whole = objects.sha256(name)
    count = len(fetched)
    assert count >= 10
    assert objects.sha256(name) == whole
    assert len(fetched) == 2 * count  # nothing is left in the cache, because a file is larger


@pytest.mark.parametrize("number", [0, 2, -1], ids=["first", "middle", "last"])
def test_an_upload_fails_if_any_of_its_parts_fails(local, tmp_path, number):
    record = local.header.files[1]
    names = [part_name(record.name, n) for n in range(-(-record.bytes // (3 * CHUNK)))]

    class Store:
        def put(self, name, part):
            if name == names[number]:
                raise ObjectStoreError("the store is away")

    with pytest.raises(ObjectStoreError, match="the store is away"):
        upload_state_file(Store(), local.path / record.name, record)


def test_an_upload_keeps_few_parts_in_memory(local, tmp_path):
    """The upload reads another part only after one of the parts in flight is stored."""
    record, started, stored = local.header.files[1], [], []
    gate, ahead = threading.Event(), threading.Event()

    class Store:
        def put(self, name, part):
            started.append(name)
            if len(started) == state_objects.PARTS_IN_FLIGHT:
                ahead.set()
            assert gate.wait(60)
            stored.append(name)

    read = []

    class File(io.FileIO):
        def read(self, size):
            read.append(size)
            return super().read(size)

    class Path:
        def open(self, mode):
            return File(local.path / record.name, mode)

    with ThreadPoolExecutor(1) as pool:
        uploading = pool.submit(upload_state_file, Store(), Path(), record)
        assert ahead.wait(60)
        time.sleep(0.1)  # an upload that did not wait would read more now
        assert len(read) == state_objects.PARTS_IN_FLIGHT
        gate.set()
        uploading.result()
    assert sum(read) >= record.bytes > state_objects.PARTS_IN_FLIGHT * state_objects.PART_BYTES
    assert sorted(stored) == sorted(set(started))


@pytest.mark.parametrize("change", ["shorter", "longer", "missing"])
def test_verify_sizes_detects_changed_parts_without_reading_them(remote, monkeypatch, change):
    store, folder = remote
    objects = StateObjects(read_parts(folder))
    objects.verify_sizes()
    name = part_name("state-00000-of-00002.safetensors", 0)
    data = store.get(name, 10**6).data
    if change == "missing":
        store.delete([name])
    else:
        store.put(name, data[:-1] if change == "shorter" else data + b"1")
    monkeypatch.setattr(ObjectStore, "get_range", None)
    with pytest.raises(DamagedCheckpointError, match=f"{store.url}/{name}"):
        objects.verify_sizes()


@pytest.mark.parametrize(
    "size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 6 * CHUNK, 6 * CHUNK + 1]
)
def test_files_that_end_at_a_chunk_or_part_boundary_are_read_whole(
    tmp_path, s3_server, s3_environment, size
):
    url = Location(f"{s3_server.bucket('borders')}/{size}")
    data = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    record = FileRecord(name="state-00000-of-00001.safetensors", bytes=size, sha256=digest)
    uploaded = upload_state_file(ObjectStore(url), tmp_path / "file", record)
    objects = StateObjects(PartList(url=url, files=[uploaded]))
    objects.verify_sizes()
    assert objects.sha256(record.name) == digest
    for start in (0, size // 2, size - 1):
        target = bytearray(size - start)
        objects.read_into(record.name, start, memoryview(target), stop=size)
        assert bytes(target) == data[start:]
