"""gs and az without an account: local servers with the parts of the protocols obstore uses."""

import hashlib
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from support.quiet_server import QuietHandler, QuietServer

from data_pipeline.storage.object_errors import (
    ObjectAccessError,
    ObjectConflictError,
    ObjectMissingError,
)
from data_pipeline.storage.object_store import ObjectStore

BUCKET = "bucket"
MODIFIED = "Wed, 21 Oct 2026 07:28:00 GMT"


class Handler(QuietHandler):
    """Server of one bucket; objects have generations in gs, and etags in az."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    objects: dict[str, tuple[bytes, int]]

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if not self.name:
            self.list(query.get("prefix", [""])[0])
        elif self.name in self.objects:
            self.reply(200, *self.objects[self.name])
        else:
            self.error(404, "NoSuchKey")

    def do_PUT(self) -> None:
        data = self.body()
        _, generation = self.objects.get(self.name, (b"", 0))
        if self.bucket != BUCKET:
            self.error(404, "NoSuchBucket")
        elif self.headers.get("x-goog-if-generation-match", str(generation)) != str(generation):
            self.error(412, "PreconditionFailed")
        elif "If-None-Match" in self.headers and generation:
            self.error(409, "BlobAlreadyExists")
        elif self.headers.get("If-Match", etag(generation)) != etag(generation):
            self.error(412, "ConditionNotMet")
        else:
            self.objects[self.name] = (data, generation + 1)
            self.reply(201, b"", generation + 1)

    def do_DELETE(self) -> None:
        if self.objects.pop(self.name, None):
            self.reply(204, b"", 0)
        else:
            self.error(404, "NoSuchKey")

    @property
    def bucket(self) -> str:
        return urlsplit(self.path).path.split("/")[1]

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.path).path).partition("/")[2].partition("/")[2]

    def list(self, prefix: str) -> None:
        entries = "".join(
            f"<Contents><Key>{name}</Key><Size>{len(data)}</Size><ETag>{generation}</ETag>"
            "<LastModified>2026-10-21T07:28:00Z</LastModified></Contents>"
            for name, (data, generation) in sorted(self.objects.items())
            if name.startswith(prefix)
        )
        self.reply(200, f"<ListBucketResult>{entries}</ListBucketResult>".encode(), 0)

    def error(self, status: int, code: str) -> None:
        self.reply(status, f"<Error><Code>{code}</Code></Error>".encode(), 0)

    def reply(self, status: int, body: bytes, generation: int) -> None:
        assert self.headers["Authorization"].split()[0] in ("Bearer", "SharedKey")
        self.send_response(status)
        self.send_header("Last-Modified", MODIFIED)
        self.send_header("ETag", etag(generation))
        self.send_header("x-goog-generation", str(generation))
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def etag(generation: int) -> str:
    return f'"{hashlib.md5(b"%d" % generation).hexdigest()}"'


@pytest.fixture(params=["gs", "az"])
def scheme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    handler = type("BucketHandler", (Handler,), {"objects": {}})
    with QuietServer(handler) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.url)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0c2VjcmV0")
        yield request.param


def test_objects_are_written_and_read(scheme: str) -> None:
    store = ObjectStore(f"{scheme}://{BUCKET}/runs/x")
    store.put("a b/ü", b"12345")

    assert store.get("a b/ü", 5).data == b"12345"
    with pytest.raises(ObjectMissingError):
        store.get("b", 5)
    with pytest.raises(ObjectAccessError, match="NoSuchBucket"):
        ObjectStore(f"{scheme}://nobody").put("a", b"")


def test_conditional_writes_conflict_as_on_s3(scheme: str) -> None:
    store = ObjectStore(f"{scheme}://{BUCKET}/runs/x")
    first = store.put_new("lease", b"1")
    with pytest.raises(ObjectConflictError):
        store.put_new("lease", b"2")
    assert store.get("lease", 1) == (b"1", first)

    second = store.put_over("lease", b"2", first)
    with pytest.raises(ObjectConflictError):
        store.put_over("lease", b"3", first)
    assert store.get("lease", 1) == (b"2", second)
    assert re.fullmatch(r"\d+" if scheme == "gs" else r'"\w+"', second)


@pytest.mark.parametrize("scheme", ["gs"], indirect=True)
def test_objects_of_gs_are_listed_and_deleted(scheme: str) -> None:
    """az deletes in batches, which this server does not support."""
    store = ObjectStore(f"{scheme}://{BUCKET}/runs/x")
    store.put("a", b"1")
    store.put("b/c", b"123")
    assert [(entry.name, entry.bytes) for entry in store.list()] == [("a", 1), ("b/c", 3)]

    store.delete(["a", "never-there", "b/c"])
    assert list(store.list()) == []
