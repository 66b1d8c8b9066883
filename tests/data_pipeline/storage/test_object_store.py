import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest
from support.storage.s3_server import LISTED_AT_ONCE, S3Server, only_moto

from data_pipeline.storage import object_store
from data_pipeline.storage.budget import TooManyBytesError
from data_pipeline.storage.object_errors import (
    ObjectAccessError,
    ObjectConflictError,
    ObjectMissingError,
    ObjectStoreError,
)
from data_pipeline.storage.object_store import ObjectInfo, ObjectStore
from foundation.errors import LocationError

pytestmark = pytest.mark.usefixtures("s3_environment")


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.bucket("objects")


@pytest.fixture
def store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    wait_for(1.0, 1.0, monkeypatch)
    return ObjectStore(f"{bucket}/runs/a b")


def wait_for(connect: float, stall: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "CONNECT_TIMEOUT_SECONDS", connect)
    monkeypatch.setattr(object_store, "STALL_TIMEOUT_SECONDS", stall)


def test_a_put_object_is_read_back(store: ObjectStore) -> None:
    data = os.urandom(3_000_000)
    store.put("folder/ü+%41~ x", data)
    store.put("view", memoryview(data)[1:5])

    assert store.get("folder/ü+%41~ x", 3_000_000).data == data
    assert store.get("view", 10).data == data[1:5]
    store.put("view", b"")
    assert store.get("view", 0).data == b""


def test_objects_are_below_the_prefix(store: ObjectStore, bucket: str, s3_server: S3Server) -> None:
    store.put("x/y", b"1")

    [[entry]] = obstore.list(s3_server.client(bucket))
    assert entry["path"] == "runs/a b/x/y"


def test_a_range_is_returned_exactly_or_is_an_error(store: ObjectStore) -> None:
    store.put("a", b"0123456789")

    assert store.get_range("a", 0, 10) == b"0123456789"
    assert store.get_range("a", 3, 5) == b"34"
    assert store.get_range("a", 7, 7) == b""
    for start, stop in ((8, 11), (10, 11), (50, 60)):
        with pytest.raises(ObjectStoreError, match="runs/a b/a: "):
            store.get_range("a", start, stop)
    with pytest.raises(ObjectMissingError):
        store.get_range("b", 0, 1)


def test_an_object_above_the_limit_is_not_read(store: ObjectStore) -> None:
    store.put("a", bytes(1001))

    with pytest.raises(TooManyBytesError, match="1,001 bytes"):
        store.get("a", 1000)


def test_a_missing_object_is_a_file_not_found_error(store: ObjectStore) -> None:
    with pytest.raises(FileNotFoundError, match=r"s3://objects-.*/runs/a b/none: 404") as raised:
        store.get("none", 10)

    assert isinstance(raised.value, ObjectMissingError)
    assert raised.value.__context__ is None


@only_moto
def test_a_missing_bucket_is_not_reported_as_a_missing_object() -> None:
    store = ObjectStore("s3://never-created/x")
    with pytest.raises(ObjectAccessError, match=r"s3://never-created/x/a: .*NoSuchBucket.*create"):
        store.get("a", 10)
    with pytest.raises(ObjectAccessError, match="NoSuchBucket"):
        store.put_over("a", b"", '"etag"')
    with pytest.raises(ObjectAccessError, match="NoSuchBucket"):
        list(store.list())


def test_put_new_fails_if_the_object_exists(store: ObjectStore) -> None:
    etag = store.put_new("lease", b"mine")

    with pytest.raises(ObjectConflictError, match="/lease: 412"):
        store.put_new("lease", b"theirs")
    assert store.get("lease", 10) == (b"mine", etag)


def test_an_object_is_replaced_only_with_its_etag(store: ObjectStore) -> None:
    first = store.put_new("lease", b"1")
    second = store.put_over("lease", b"2", first)

    with pytest.raises(ObjectConflictError):
        store.put_over("lease", b"3", first)
    with pytest.raises(ObjectConflictError):
        store.put_over("none", b"3", first)
    with pytest.raises(ObjectStoreError, match="etag"):
        store.put_over("lease", b"3", "")
    assert store.get("lease", 10) == (b"2", second)


def test_no_concurrent_update_is_lost(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each writer increments the number in an object; no increment is lost."""
    wait_for(10.0, 30.0, monkeypatch)  # enough for writes that wait for each other
    store.put_new("number", b"0")
    start = threading.Barrier(4)

    def add() -> int:
        conflicts = 0
        start.wait()
        for _ in range(5):
            while True:
                number, etag = store.get("number", 10)
                try:
                    store.put_over("number", b"%d" % (int(number) + 1), etag)
                    break
                except ObjectConflictError:
                    conflicts += 1
        return conflicts

    with ThreadPoolExecutor(4) as pool:
        conflicts = [pool.submit(add) for _ in range(4)]
    assert sum(future.result() for future in conflicts) > 0
    assert store.get("number", 10).data == b"20"


def test_a_long_listing_is_complete(store: ObjectStore, bucket: str, s3_server: S3Server) -> None:
    """The prefix has more objects than the server lists at once."""
    client = s3_server.client(bucket)
    names = [f"many/{number:04}" for number in range(2 * LISTED_AT_ONCE + 3)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: obstore.put(client, f"runs/a b/{name}", b""), names))
    store.put("one", b"12345")
    obstore.put(client, "runs/a bc", b"")  # outside the prefix

    assert sorted(entry.name for entry in store.list("many")) == names
    assert sorted(entry.name for entry in store.list()) == [*names, "one"]
    assert list(store.list("man")) == []
    [one] = [entry for entry in store.list() if entry.name == "one"]
    assert one == ObjectInfo("one", 5, one.modified)
    assert abs(one.modified - time.time()) < 600

    store.delete([*names, "never-there"])
    assert [entry.name for entry in store.list("")] == ["one"]
    store.delete([])


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "../a", "a/../../b", "a//b", "./a", "a\\b", "a\0", "a\nb", "%2e%2e/a"]
)
def test_names_that_leave_the_prefix_are_refused(store: ObjectStore, name: str) -> None:
    with pytest.raises(ObjectStoreError, match="not the name of an object"):
        store.put(name, b"")
    with pytest.raises(ObjectStoreError):
        store.get(name, 1)
    with pytest.raises(ObjectStoreError):
        store.delete([name])


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/a",
        "s3://bucket/a?versionId=1",
        "s3://bucket/a?X-Amz-Signature=0123456789abcdef0123",
        "s3://bucket/a#b",
        "s3://bucket/../a",
        "s3://bucket//a",
        "s3://",
        "s3:///a",
        "s3://bucket:9000/a",
        "https://bucket/a",
        "/folder",
    ],
)
def test_urls_with_more_than_a_bucket_and_a_prefix_are_refused(url: str) -> None:
    with pytest.raises(LocationError) as raised:
        ObjectStore(url)

    assert "secret" not in str(raised.value)
    assert "0123456789abcdef" not in str(raised.value)


def test_a_store_is_pickled_without_its_client(store: ObjectStore, s3_server: S3Server) -> None:
    store.put("a", b"1")
    pickled = pickle.dumps(store)

    for value in (pickled, repr(store).encode(), repr(vars(store)).encode()):
        assert b"CANARY" not in value
    again = pickle.loads(pickled)  # noqa: S301
    assert again.get("a", 1).data == b"1"
    assert again.url == store.url


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_gets_an_error_and_does_not_hang(store: ObjectStore) -> None:
    store.put("a", b"1")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ObjectStore(str(store.url)).get("a", 1)
        except ObjectStoreError as error:
            code = 0 if "spawn or forkserver" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0) == (pid, 0)


@only_moto
def test_credentials_are_read_from_a_profile(
    store: ObjectStore, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store.put("a", b"1")
    for name in s3_server.environment:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(
        f"[profile lab]\nregion = us-east-1\nendpoint_url = {s3_server.url}/\n"
    )
    (tmp_path / "keys").write_text("[lab]\naws_access_key_id=A\naws_secret_access_key=B\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_PROFILE", "lab")

    assert ObjectStore(store.url).get("a", 1).data == b"1"


def test_a_server_that_ignores_conditions_can_be_used(
    rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in rclone_server.environment.items():
        monkeypatch.setenv(name, value)
    store = ObjectStore(rclone_server.bucket("objects"))
    store.put_new("a", b"1")
    store.put_new("a", b"2")

    assert store.get("a", 1).data == b"2"
