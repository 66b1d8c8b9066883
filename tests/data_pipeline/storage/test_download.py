"""Download files from a server that fails in the usual ways."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.files.faulty_server import Fault, FaultyServer

from data_pipeline.errors import CorpusError
from data_pipeline.storage import remote
from data_pipeline.storage.remote import download

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    monkeypatch.setattr(remote, "RETRY_DELAYS_SECONDS", (0.001, 0.001, 0.001))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a b.gz").write_bytes(CONTENT)
    with FaultyServer(tmp_path / "served") as server:
        yield server


def test_a_file_is_downloaded_unchanged(server: FaultyServer, tmp_path: Path) -> None:
    download(f"{server.url}/a%20b.gz", tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == CONTENT
    assert server.requests == {"a b.gz": 1}


@pytest.mark.parametrize(
    "fault", [Fault.INTERNAL_ERROR, Fault.UNAVAILABLE, Fault.RESET, Fault.TRUNCATED]
)
def test_a_transient_failure_is_retried(
    fault: Fault, server: FaultyServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail(fault, on={1, 2, 3})
    with caplog.at_level(logging.WARNING):
        download(f"{server.url}/a%20b.gz", tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == CONTENT
    assert server.requests == {"a b.gz": 4}
    assert caplog.text.count("a%20b.gz in 0.0 s: ") == 3


def test_the_last_failure_is_reported(server: FaultyServer, tmp_path: Path) -> None:
    server.fail(Fault.INTERNAL_ERROR)
    with pytest.raises(CorpusError, match=r"cannot be downloaded \(ClientResponseError: 500.*mirr"):
        download(f"{server.url}/a%20b.gz", tmp_path / "new")
    assert server.requests == {"a b.gz": 4}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(Fault.NOT_FOUND, "FileNotFoundError"), (Fault.FORBIDDEN, "ClientResponseError: 403")],
)
def test_a_permanent_failure_is_reported_at_once(
    fault: Fault, reason: str, server: FaultyServer, tmp_path: Path
) -> None:
    server.fail(fault)
    with pytest.raises(CorpusError, match=rf"cannot be downloaded \({reason}"):
        download(f"{server.url}/a%20b.gz", tmp_path / "new")
    assert server.requests == {"a b.gz": 1}


def test_a_download_without_an_end_does_not_fill_the_disk(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 10_000_000
    monkeypatch.setattr(remote, "MAX_DISK_SHARE", most / shutil.disk_usage(tmp_path).free)
    server.fail(Fault.ENDLESS)
    message = r"does not fit on the disk of .*: expected at most [\d,]+ bytes, .* found at least "
    with pytest.raises(CorpusError, match=message):
        download(f"{server.url}/a%20b.gz", tmp_path / "new")
    assert (tmp_path / "new").stat().st_size < 4 * most
    assert server.requests == {"a b.gz": 1}


def test_a_compressed_body_is_stored_unchanged(server: FaultyServer, tmp_path: Path) -> None:
    """The body is decompressed when it is read, within a limit."""
    server.fail(Fault.BOMB)
    download(f"{server.url}/a%20b.gz", tmp_path / "new")
    assert (tmp_path / "new").stat().st_size < 1_000_000


@pytest.mark.parametrize("url", ["ftp://host/a", "simplecache::http://host/a"])
def test_unknown_schemes_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"expected one of file, http, https, s3, gs, az"):
        download(url, tmp_path / "new")
