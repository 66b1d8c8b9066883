"""Invalid content in the small files of a run's folder never ends in a traceback."""

import os
from pathlib import Path

import pytest

from run_store import lease as lease_module
from run_store.errors import RunInUseError, RunMismatchError
from run_store.folder import RunFolder
from run_store.lease import Lease

DEEP = b"[" * 50_000 + b"]" * 50_000
CONTENTS = {
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "deep": DEEP,
    "an owner of lists": b'{"host": [], "process": [], "started": [], "place": [], "since": []}',
    "process 0": b'{"host": "x", "process": 0, "place": null, "since": "x"}',
    "process -1": b'{"host": "x", "process": -1, "place": null, "since": "x"}',
    "process 10**25": b'{"host": "x", "process": 1%025d, "place": null, "since": "x"}' % 0,
    "a key twice": b'{"host": "x", "host": "y", "process": 1, "since": "x"}',
    "no UTF-8": b'{"host": "\xff"}',
    "large": b'{"host": "' + b"x" * 20_000 + b'", "process": 1, "since": "x"}',
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.05)
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(lease_module, "POLL_SECONDS", 0.005)


def owner(run: Path) -> Path:
    (run / "owners").mkdir()
    return run / "owners" / "00000007.json"


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_run_with_an_invalid_owner_file_is_taken_when_the_lease_expires(
    tmp_path: Path, content: bytes
) -> None:
    file = owner(tmp_path)
    file.write_bytes(content)
    said: list[str] = []
    with Lease(tmp_path, said.append) as lease:
        lease.check()
    assert all(f"an unknown process (see {file})" in text for text in said)


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_live_owner_with_an_invalid_file_is_named_by_the_path(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = owner(tmp_path)
    file.write_bytes(content)
    times = iter(range(10))
    monkeypatch.setattr(lease_module, "_last_renewed", lambda owner: next(times))
    with pytest.raises(RunInUseError, match=rf"an unknown process \(see {file}\)"):
        Lease(tmp_path).__enter__()


def test_an_owner_file_that_is_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(owner(tmp_path))
    with pytest.raises(OSError, match=r"it is a FIFO, expected a regular file.*00000007\.json"):
        Lease(tmp_path).__enter__()


@pytest.mark.parametrize(
    "content", [*CONTENTS.values(), b"{}", b'{"id": 1, "id": 2}'], ids=[*CONTENTS, "empty", "twice"]
)
def test_an_invalid_card_is_reported_by_file_and_key(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(tmp_path)
    run.card_path.write_bytes(content)
    with pytest.raises(RunMismatchError, match=r"is damaged: .*Restore it from a copy") as caught:
        run.card()
    assert str(caught.value).startswith(str(run.card_path))
    assert len(str(caught.value)) < 800


def test_a_card_that_is_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    os.mkfifo(run.card_path)
    with pytest.raises(RunMismatchError, match=r"run\.json cannot be read: it is a FIFO"):
        run.card()


@pytest.mark.parametrize(
    "content", [b"", b"0", b"-1", b"[]", b"\xff", b"1" * 6, b"9" * 5000, "²".encode(), b"1 2"]
)
def test_an_invalid_request_for_workers_is_ignored(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(tmp_path)
    run.data_workers_request.parent.mkdir()
    run.data_workers_request.write_bytes(content)
    assert run.take_data_workers_request() is None
    run.request_data_workers(3)
    assert run.take_data_workers_request() == 3


def test_a_fifo_as_request_for_data_workers_is_ignored(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.data_workers_request.parent.mkdir()
    os.mkfifo(run.data_workers_request)
    assert run.take_data_workers_request() is None
