"""Datasets and corpora in an object store have the same bytes, limits and errors as over HTTP."""

import gzip
import hashlib
import logging
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest
from support.quality import memory
from support.storage.fault_proxy import (
    Answer,
    CutAnswer,
    Fault,
    FaultProxy,
    Rewrite,
    Slow,
    StallBody,
)
from support.storage.s3_server import KEY_ID, SECRET_KEY, S3Server

from data_pipeline.errors import CorpusError, DatasetError, DatasetFileError
from data_pipeline.storage import object_store, remote
from data_pipeline.storage.locations import open_location
from data_pipeline.storage.remote import download
from data_pipeline.storage.shard_cache import ShardCache
from data_pipeline.storage.store import RemoteStore, open_store
from foundation.errors import LocationError

SHARD = "shards/train-00000.tar"
rng = random.Random(11)
FILES = {SHARD: rng.randbytes(200_000), "manifest.json": b'{"format": 1}', "größe.txt": b"x"}
SHA256 = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
TEXT = b"".join(b"line %d\n" % number for number in range(30_000))
STALL_SECONDS = 0.5


@pytest.fixture(scope="module")
def location(s3_server: S3Server) -> str:
    """Return the location of a dataset and a corpus, which tests must not change."""
    bucket = s3_server.bucket("datasets")
    client = s3_server.client(bucket)
    for name, data in FILES.items():
        obstore.put(client, f"d 1/{name}", data)
    obstore.put(client, "corpus a.gz", gzip.compress(TEXT))
    return f"{bucket}/d 1"


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache" / "shards", 10_000_000)


@pytest.fixture
def short_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "STALL_TIMEOUT_SECONDS", STALL_SECONDS)


@pytest.fixture
def store(
    fault_proxy: FaultProxy, location: str, cache: ShardCache, short_stall: None
) -> RemoteStore:
    return RemoteStore(location, cache, (0.001,))


def read(store: RemoteStore, name: str = SHARD) -> bytes:
    return store.read(name, SHA256[name], len(FILES[name]))


def failure_of(store: RemoteStore) -> DatasetFileError:
    with pytest.raises(DatasetFileError) as caught:
        read(store)
    return caught.value


def test_a_dataset_is_read_and_cached(
    fault_proxy: FaultProxy, location: str, tmp_path: Path
) -> None:
    store = open_store(location + "/", cache=tmp_path)
    assert store.location == location
    assert store.read_manifest() == FILES["manifest.json"]
    assert {name: read(store, name) for name in FILES} == FILES
    assert {name: read(store, name) for name in FILES} == FILES

    assert fault_proxy.requests == {"GET": 1 + len(FILES)}
    assert (tmp_path / "shards" / SHA256[SHARD]).read_bytes() == FILES[SHARD]


@pytest.mark.usefixtures("short_stall")
def test_readers_of_a_node_make_one_request_per_file(
    fault_proxy: FaultProxy, location: str, cache: ShardCache
) -> None:
    stores = [RemoteStore(location, cache, (0.001,)) for _ in range(4)]
    files = [(name, SHA256[name], len(data)) for name, data in FILES.items()]
    with ThreadPoolExecutor(len(stores)) as pool:
        contents = list(pool.map(lambda store: list(store.read_many(files)), stores))
    assert contents == [list(FILES.values())] * len(stores)
    assert fault_proxy.requests == {"GET": len(FILES)}


@pytest.mark.parametrize(
    "fault",
    [Answer(500), Answer(404), Answer(403), CutAnswer(), StallBody(), Rewrite(lambda b: b[1:])],
    ids=lambda fault: type(fault).__name__,
)
def test_a_transient_fault_costs_one_more_request(
    fault: Fault, fault_proxy: FaultProxy, store: RemoteStore
) -> None:
    fault_proxy.fail(fault, on={1})
    assert read(store) == FILES[SHARD]
    assert fault_proxy.requests == {"GET": 2}


WHOLE_FILE = r"200,000 bytes in s3://datasets-\d+/d 1"


@pytest.mark.parametrize(
    ("fault", "expected", "found"),
    [
        (Answer(500), WHOLE_FILE, r"no readable file \(.*/train-00000\.tar: 500.*InternalError"),
        (Answer(403), WHOLE_FILE, r"no readable file \(ObjectAccessError: .* 403 Forbidden"),
        (Answer(404), WHOLE_FILE, r"no readable file \(404, not found\)"),
        (Answer(404, "NoSuchBucket"), WHOLE_FILE, r"no readable file \(.*NoSuchBucket"),
        (StallBody(), WHOLE_FILE, r"no readable file \(.*(timeout|decod|body)"),
        (Slow(0.05), WHOLE_FILE, r"no readable file \(.* bytes have arrived in"),
        (Rewrite(lambda body: body[1:]), "200,000 bytes", "199,999 bytes"),
        (Rewrite(lambda body: body + b"1"), "200,000 bytes", "200,001 bytes"),
        (Rewrite(lambda body: b"1" + body[1:]), "sha256", "sha256 [0-9a-f]{64}"),
    ],
)
def test_a_lasting_fault_is_an_error_with_the_reason(
    fault: Fault, expected: str, found: str, fault_proxy: FaultProxy, store: RemoteStore
) -> None:
    fault_proxy.fail(fault)
    error = failure_of(store)
    assert error.file == SHARD
    assert re.match(expected, error.expected)
    assert re.match(found, error.found)
    fault_proxy.heal()
    assert read(store) == FILES[SHARD]


def test_an_answer_that_is_too_large_is_not_read(
    fault_proxy: FaultProxy, store: RemoteStore, cache: ShardCache
) -> None:
    huge = bytes(100_000_000)
    fault_proxy.fail(Rewrite(lambda _: huge))
    with memory.at_most(20_000_000):
        assert failure_of(store).args == (SHARD, "200,000 bytes", "100,000,000 bytes")
        with pytest.raises(DatasetError):
            store.read_manifest()
    assert not list(cache.folder.glob("?" * 64))


def test_a_missing_bucket_or_object_is_a_dataset_error(
    location: str, cache: ShardCache, s3_environment: None
) -> None:
    for url in ("s3://never-created/d", location + "x"):
        with pytest.raises(DatasetError):
            RemoteStore(url, cache, ()).read_manifest()


def test_a_corpus_is_downloaded_once(
    fault_proxy: FaultProxy, location: str, tmp_path: Path
) -> None:
    corpus = location.replace("d 1", "corpus a.gz")
    sha256 = hashlib.sha256(TEXT).hexdigest()
    for _ in range(2):
        with open_location(corpus, mirror=None, cache=tmp_path, sha256=sha256) as stream:
            assert stream.read() == TEXT
    assert fault_proxy.requests == {"GET": 1}
    with pytest.raises(CorpusError, match=f"wrong content: .*{'0' * 64}.*{sha256}"):
        open_location(corpus, mirror=None, cache=tmp_path, sha256="0" * 64)


def test_a_failed_download_is_retried(
    fault_proxy: FaultProxy,
    location: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(remote, "RETRY_DELAYS_SECONDS", (0.001, 0.001))
    corpus = f"{location}/{SHARD}"
    fault_proxy.fail(Answer(503), on=range(1, 5))  # obstore gives up, but transloom retries
    fault_proxy.fail(CutAnswer(), on={5})
    with caplog.at_level(logging.WARNING):
        download(corpus, tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == FILES[SHARD]
    assert len(caplog.records) == 1

    fault_proxy.heal()
    fault_proxy.fail(Answer(503))
    with pytest.raises(CorpusError, match=r"cannot be downloaded \(.*503.*environment; or.*mirr"):
        download(corpus, tmp_path / "new")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Answer(404), "ObjectMissingError: .*404"),
        (Answer(403), "ObjectAccessError: .*403.*AccessDenied"),
        (Answer(404, "NoSuchBucket"), "ObjectAccessError: .*NoSuchBucket"),
    ],
)
def test_a_permanent_failure_is_reported_at_once(
    fault: Fault, reason: str, fault_proxy: FaultProxy, location: str, tmp_path: Path
) -> None:
    fault_proxy.fail(fault)
    with pytest.raises(CorpusError, match=rf"cannot be downloaded \({reason}"):
        download(f"{location}/{SHARD}", tmp_path / "new")
    assert fault_proxy.requests == {"GET": 1}


def test_a_download_does_not_fill_the_disk(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_environment: None
) -> None:
    monkeypatch.setattr(remote, "MAX_DISK_SHARE", 0.0)
    with pytest.raises(CorpusError, match=r"does not fit on the disk of .* found 200,000 bytes"):
        download(f"{location}/{SHARD}", tmp_path / "new")


def test_a_local_write_error_is_not_reported_as_the_server_s(
    location: str, tmp_path: Path, s3_environment: None
) -> None:
    with pytest.raises(CorpusError, match=r"cannot be downloaded \(IsADirectoryError"):
        download(f"{location}/{SHARD}", tmp_path)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/a/", "s3://bucket/a?versionId=1"])
def test_a_corpus_url_must_name_a_single_object(url: str, tmp_path: Path) -> None:
    with pytest.raises(LocationError, match=r"Expected s3://BUCKET/NAME"):
        download(url, tmp_path / "new")


def test_messages_contain_no_credentials(
    fault_proxy: FaultProxy, store: RemoteStore, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"<AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId>{SECRET_KEY}"
    fault_proxy.fail(Answer(403, "SignatureDoesNotMatch", text))
    shown = repr(failure_of(store)) + caplog.text
    assert "SignatureDoesNotMatch" in shown
    assert KEY_ID not in shown
    assert SECRET_KEY not in shown
