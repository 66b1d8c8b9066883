"""A node's files arrive at the driver as they are, however they have changed between two polls."""

import os
from pathlib import Path

import pytest

from cluster.ranks import node_mirror
from cluster.ranks.node_mirror import NodeMirror, SentFile

RECORD = "metrics.jsonl"


class Mirrored:
    """The folders of a node and of the driver, which polls the node."""

    def __init__(self, folder: Path) -> None:
        self.node, self.driver = folder / "node", folder / "driver"
        self.node.mkdir()
        self.driver.mkdir()
        self.mirror = NodeMirror.__new__(NodeMirror)  # without an object store
        self.mirror.folder = self.node
        self.known: dict[str, SentFile] = {}

    def poll(self) -> int:
        """Copy all changes; return the number of bytes that were sent."""
        sent, is_all = 0, False
        while not is_all:
            changes, is_all = self.mirror.changes(self.known)
            for change in changes:
                change.apply(self.driver)
                self.known[change.name] = change.stamp
                sent += len(change.data)
        return sent

    def write(self, data: bytes, at: int | None = None) -> None:
        """Append bytes to the record, after truncating it in place if a position is given."""
        path = self.node / RECORD
        path.touch()
        with path.open("r+b") as file:
            file.seek(0, os.SEEK_END) if at is None else file.seek(at)
            file.truncate()
            file.write(data)

    @property
    def is_equal(self) -> bool:
        return (self.node / RECORD).read_bytes() == (self.driver / RECORD).read_bytes()


@pytest.fixture
def mirrored(tmp_path: Path) -> Mirrored:
    return Mirrored(tmp_path)


def test_only_new_bytes_of_a_record_that_grows_are_sent(mirrored: Mirrored) -> None:
    mirrored.write(b"one\n")
    assert mirrored.poll() == 4
    mirrored.write(b"two\nthree\n")
    assert mirrored.poll() == 10
    assert mirrored.poll() == 0
    assert mirrored.is_equal


@pytest.mark.parametrize("regrown", [b"x", b'{"step": 2}\n', b'{"step": 2}\n{"step": 3}\n' * 9])
@pytest.mark.parametrize("at", [0, 12, 14])
def test_a_record_that_was_truncated_in_place_and_has_regrown_is_sent_again(
    mirrored: Mirrored, at: int, regrown: bytes
) -> None:
    mirrored.write(b'{"step": 1}\n{"ste')  # a torn line, as on a full disk
    mirrored.poll()
    mirrored.write(regrown, at=at)
    mirrored.poll()
    assert mirrored.is_equal


@pytest.mark.parametrize("window", [1, 7, 1000])
@pytest.mark.parametrize("most", [3, 1000])
def test_a_record_is_sent_in_blocks_while_it_changes(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch, window: int, most: int
) -> None:
    monkeypatch.setattr(node_mirror, "COMPARED_BYTES", window)
    monkeypatch.setattr(node_mirror, "MAX_ANSWER_BYTES", most)
    for number in range(20):
        mirrored.write(f"line {number}\n".encode())
        if number % 3 == 0:
            size = (mirrored.node / RECORD).stat().st_size
            mirrored.write(f"another {number}, which is longer\n".encode(), at=size - 4)
        changes, _ = mirrored.mirror.changes(mirrored.known)  # part of them, at most
        for change in changes:
            change.apply(mirrored.driver)
            mirrored.known[change.name] = change.stamp
    mirrored.poll()
    assert mirrored.is_equal


def test_a_file_that_was_pulled_is_continued(mirrored: Mirrored) -> None:
    for folder in (mirrored.node, mirrored.driver):
        (folder / RECORD).write_bytes(b"one\n")
    mirrored.known = {RECORD: SentFile.of(mirrored.node / RECORD)}
    mirrored.write(b"two\n")
    assert mirrored.poll() == 4
    assert mirrored.is_equal
