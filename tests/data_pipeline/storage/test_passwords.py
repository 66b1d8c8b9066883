"""Passwords for HTTP: from the netrc file, only to the location's origin, and in no message."""

import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.files.guarded_server import GuardedServer

from data_pipeline.errors import CorpusError, DatasetError, DatasetFileError
from data_pipeline.storage import remote
from data_pipeline.storage.locations import open_location
from data_pipeline.storage.remote import check_netrc, download
from data_pipeline.storage.shard_cache import ShardCache
from data_pipeline.storage.store import LocalStore, RemoteStore, open_store
from foundation.errors import LocationError

PASSWORD = "s3cr3tCANARY"
SIGNED = "X-Amz-Signature=CANARY0123456789"
TEXT = b"text"
SHA256 = "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RETRY_DELAYS_SECONDS", (0.001,))
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that writes the file that NETRC names."""

    def write(text: str) -> Path:
        path = tmp_path / "passwords"
        path.write_text(text)
        monkeypatch.setenv("NETRC", str(path))
        return path

    return write


@pytest.fixture
def guarded() -> Iterator[GuardedServer]:
    with GuardedServer({"a.txt": TEXT, "manifest.json": b"{}"}, f"me:{PASSWORD}") as server:
        yield server


@pytest.fixture
def open_to_all() -> Iterator[GuardedServer]:
    with GuardedServer({"a.txt": TEXT}) as server:
        yield server


def test_a_password_in_the_netrc_file_is_used_for_files_and_datasets(
    guarded: GuardedServer, netrc: Callable[[str], Path], tmp_path: Path
) -> None:
    netrc(f"machine 127.0.0.1 login me password {PASSWORD}\n")
    download(f"{guarded.url}/a.txt", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == TEXT
    store = open_store(guarded.url, cache=tmp_path / "cache")
    assert store.read_manifest() == b"{}"
    assert store.read("a.txt", SHA256, 4) == TEXT
    assert guarded.shown == [guarded.wanted] * 3


def test_without_a_password_a_protected_file_is_refused(
    guarded: GuardedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CorpusError):
        download(f"{guarded.url}/a.txt", tmp_path / "a")
    assert guarded.shown == [None]


@pytest.mark.parametrize("entry", ["machine 127.0.0.1", "default"])
def test_the_password_is_not_sent_to_other_servers_after_a_redirect(
    entry: str,
    guarded: GuardedServer,
    open_to_all: GuardedServer,
    netrc: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """aiohttp alone would send it to a different port or name of the same host."""
    netrc(f"{entry} login me password {PASSWORD}\n")
    elsewhere = f"{open_to_all.url}/a.txt?{SIGNED}"
    for address in (elsewhere, elsewhere.replace("127.0.0.1", "localhost")):
        guarded.moved["b.txt"] = address
        download(f"{guarded.url}/b.txt", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == TEXT
    assert guarded.shown == [guarded.wanted] * 2
    assert open_to_all.asked == [f"/a.txt?{SIGNED}"] * 2
    assert open_to_all.shown == [None] * 2


def test_the_password_is_sent_again_after_a_redirect_to_the_same_server(
    guarded: GuardedServer, netrc: Callable[[str], Path], tmp_path: Path
) -> None:
    netrc(f"machine 127.0.0.1 login me password {PASSWORD}\n")
    guarded.moved["b.txt"] = "/a.txt"
    download(f"{guarded.url}/b.txt", tmp_path / "b")
    assert guarded.shown == [guarded.wanted] * 2


@pytest.mark.parametrize(
    "address", ["{}/none.txt", "http://me:s3cr3tCANARY@127.0.0.1:1/a", "ftp://h/a", "http://[/a"]
)
def test_the_target_of_a_redirect_is_in_no_message(
    address: str,
    open_to_all: GuardedServer,
    netrc: Callable[[str], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    netrc("")
    open_to_all.moved["b.txt"] = f"{address.format(open_to_all.url)}?{SIGNED}"
    url = f"{open_to_all.url}/b.txt"
    with pytest.raises(CorpusError, match=r"/b\.txt cannot be downloaded") as of_download:
        download(url, tmp_path / "b")
    store = RemoteStore(open_to_all.url, ShardCache(tmp_path / "cache", 1000), (0.001,))
    with pytest.raises(DatasetFileError, match=r"b\.txt of the dataset") as of_store:
        store.read("b.txt", SHA256)
    for caught in (of_download, of_store):  # with all causes, as a process pool or Ray prints them
        assert "CANARY" not in "".join(traceback.format_exception(caught.value))
    assert "CANARY" not in caplog.text
    assert "Retrying" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "machine 127.0.0.1\nlogin me\npassword s3cr3tCANARY\nCANARY",
        "machine 127.0.0.1 login me pasword s3cr3tCANARY",
        "s3cr3tCANARY",
    ],
)
def test_a_damaged_netrc_file_is_named_but_not_shown(
    text: str,
    guarded: GuardedServer,
    netrc: Callable[[str], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = netrc(text)
    for read in (
        lambda: download(f"{guarded.url}/a.txt", tmp_path / "a"),
        lambda: RemoteStore(guarded.url, ShardCache(tmp_path, 1), ()).read("a.txt", SHA256),
    ):
        with pytest.raises((LocationError, DatasetError), match=rf"{path} .*line \d") as caught:
            read()
        assert "CANARY" not in "".join(traceback.format_exception(caught.value))
    assert "CANARY" not in caplog.text
    assert guarded.asked == []


def test_a_missing_netrc_file_is_reported(
    guarded: GuardedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(LocationError, match=rf"{tmp_path}/none.*No such file.*NETRC"):
        download(f"{guarded.url}/a.txt", tmp_path / "a")


def test_a_netrc_file_at_home_that_others_may_read_is_refused(
    guarded: GuardedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".netrc"
    path.write_text(f"machine 127.0.0.1 login me password {PASSWORD}\n")
    path.chmod(0o644)
    with pytest.raises(LocationError, match=r"readable only by you \(chmod 600\)"):
        download(f"{guarded.url}/a.txt", tmp_path / "a")
    path.chmod(0o600)
    download(f"{guarded.url}/a.txt", tmp_path / "a")


def test_a_home_that_this_user_cannot_enter_counts_as_without_netrc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def is_file(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setattr(Path, "is_file", is_file)
    check_netrc()


@pytest.mark.parametrize("query", ["", f"?{SIGNED}"])
def test_a_url_with_a_credential_is_refused_without_a_request(
    query: str, guarded: GuardedServer, tmp_path: Path
) -> None:
    user = "" if query else f"me:{PASSWORD}@"
    url = guarded.url.replace("://", f"://{user}") + f"/a.txt{query}"
    for read in (
        lambda: download(url, tmp_path / "a"),
        lambda: open_location(url, mirror=None, cache=tmp_path, sha256=SHA256),
        lambda: open_location(url, mirror=str(tmp_path), cache=tmp_path, sha256=SHA256),
        lambda: open_store(url),
        lambda: RemoteStore(url, ShardCache(tmp_path, 1)),
    ):
        with pytest.raises(LocationError, match="carries") as caught:
            read()
        assert "CANARY" not in str(caught.value)
    assert guarded.asked == []


@pytest.mark.parametrize(
    "name",
    ["..%2fa.txt", "%2e%2e/a.txt", "../a.txt", "..\\a.txt", "/a.txt", "//host/a.txt", "%2fa.txt"],
)
def test_a_name_that_leaves_the_dataset_is_refused_without_a_request(
    name: str, open_to_all: GuardedServer, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    cache = ShardCache(tmp_path / "cache", 1000)
    for store in (
        RemoteStore(f"{open_to_all.url}/d", cache, ()),
        LocalStore(tmp_path / "d", ()),
    ):
        with pytest.raises(DatasetFileError, match="which leads out of it") as caught:
            store.read(name, SHA256, 4)
        assert caught.value.file == name
    assert open_to_all.asked == []


def test_retry_messages_contain_no_credential(caplog: pytest.LogCaptureFixture) -> None:
    from data_pipeline.storage.remote import wait_before_retry

    with caplog.at_level(logging.WARNING):
        wait_before_retry(0, f"http://me:{PASSWORD}@host/a", f"moved to http://host/b?{SIGNED}")
    assert "Retrying http://host/a in" in caplog.text
    assert "CANARY" not in caplog.text
