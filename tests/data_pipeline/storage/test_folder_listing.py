"""Listings of folders in an object store end, whatever the server sends."""

import itertools
from contextlib import contextmanager

import pytest
from support.quiet_server import QuietHandler, QuietServer

from data_pipeline.storage import folder_listing
from data_pipeline.storage.folder_listing import list_folders
from data_pipeline.storage.object_errors import ObjectAccessError, ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore


def test_a_listing_contains_folders_but_no_objects(s3_server, s3_environment):
    url = f"{s3_server.bucket('folders')}/our/runs"
    store = ObjectStore(url)
    assert list_folders(url) == []
    for name in ("one/HEAD.json", "one/deeper/x", "ä 2/x", "file"):
        store.put(name, b"x")
    ObjectStore(url + "-other").put("x/y", b"x")
    assert sorted(list_folders(url)) == ["one", "ä 2"]


def test_errors_of_a_listing_keep_their_class(s3_server, s3_environment):
    with pytest.raises(ObjectAccessError, match="bucket"):
        list_folders("s3://no-such-bucket-here/runs")


MORE = b"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"


def entries(page):
    return "".join(
        f"<Contents><Key>runs/r{page}-{number}/HEAD.json</Key>"
        "<LastModified>2026-01-01T00:00:00Z</LastModified>"
        '<ETag>"a"</ETag><Size>1</Size></Contents>'
        for number in range(1000)
    ).encode()


@contextmanager
def endless_server(monkeypatch, *, pages):
    """Serve a list of objects that has no end: in one response, or page after page."""
    count = itertools.count()

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            begin = b'<?xml version="1.0"?><ListBucketResult>'
            self.send_response(200)
            if pages:
                body = begin + MORE + entries(next(count)) + b"</ListBucketResult>"
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("Connection", "close")
            self.end_headers()
            chunk = entries(0)
            try:
                self.wfile.write(begin)
                while True:
                    self.wfile.write(chunk)
            except OSError:
                pass

    with QuietServer(Handler) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield


@pytest.mark.parametrize("pages", [False, True], ids=["response", "pages"])
def test_a_listing_without_an_end_is_refused(s3_environment, monkeypatch, pages):
    monkeypatch.setattr(folder_listing, "CHILD_MEMORY_BYTES", 64 * 1024**2)
    with (
        endless_server(monkeypatch, pages=pages),
        pytest.raises(ObjectStoreError, match=r"more than 100,000 names, 64 MiB"),
    ):
        list_folders("s3://b/runs")


def test_a_listing_that_takes_too_long_is_refused(s3_environment, monkeypatch):
    monkeypatch.setattr(folder_listing, "MAX_SECONDS", 0.01)
    with pytest.raises(ObjectStoreError, match=r"or 0 s\. Name the URL of one run"):
        list_folders("s3://b/runs")


def test_a_listing_of_more_objects_than_allowed_is_refused(s3_server, s3_environment):
    store = ObjectStore(f"{s3_server.bucket('folders')}/run")
    for number in range(3):
        store.put(str(number), b"x")
    assert len(list(store.list(most=3))) == 3
    with pytest.raises(ObjectStoreError, match=r"3 objects so far, expected at most 2"):
        list(store.list(most=2))
    with pytest.raises(ObjectStoreError):
        list(store.list(seconds=0.0))
