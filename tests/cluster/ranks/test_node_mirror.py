"""A node's files arrive at the driver as they are, however they have changed between two polls."""

import os
from pathlib import Path

import pytest

from cluster.ranks import node_mirror
from cluster.ranks.node_mirror import SHARED_RANK_FILES, FileChange, NodeMirror, SentFile
from trainer.runs.remote.files import FileStamp

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


URL = "s3://bucket/run"


class Pair:
    """A node and its driver, which polls the node's changes."""

    def __init__(self, folder):
        self.node = NodeMirror(URL)
        self.node.folder.mkdir(parents=True)
        self.driver = folder / "driver"
        self.known = {}
        self.received = []

    def write(self, name, data, mode="wb"):
        path = self.node.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.write(data)

    def replace(self, name, data):
        self.write(f"{name}.new", data)
        (self.node.folder / f"{name}.new").replace(self.node.folder / name)

    def poll(self):
        changes, is_all = self.node.changes(self.known)
        assert sum(len(change.data) for change in changes) <= node_mirror.MAX_ANSWER_BYTES
        for change in changes:
            change.apply(self.driver)
            self.known[change.name] = change.stamp
        self.received += changes
        return is_all

    def read(self, name="metrics.jsonl"):
        return (self.driver / name).read_bytes()


@pytest.fixture
def pair(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSLOOM_CACHE", str(tmp_path / "cache"))
    return Pair(tmp_path)


@pytest.mark.parametrize("data", [b"uno\ndos\ntres\n", b"uno\n", b"u\n"])
def test_a_file_that_replaces_another_replaces_the_copy(pair, data):
    """Whether it is longer, as long or shorter."""
    pair.write("metrics.jsonl", b"one\n")
    pair.poll()
    pair.replace("metrics.jsonl", data)
    pair.poll()
    assert pair.read() == data


def test_a_file_that_is_rewritten_in_place_with_equal_size_arrives(pair):
    pair.write("metrics.jsonl", b"one\n")
    pair.poll()
    pair.write("metrics.jsonl", b"two\n", "r+b")
    os.utime(pair.node.folder / "metrics.jsonl", (1, 1))  # the clock may be coarse
    pair.poll()
    assert pair.read() == b"two\n"


def test_a_copy_is_replaced_as_a_whole(pair, monkeypatch):
    """A reader sees the former content until the new one is complete."""
    pair.write("metrics.jsonl", b"one\n")
    pair.poll()
    pair.replace("metrics.jsonl", b"two\nthree\n")
    with (pair.driver / "metrics.jsonl").open("rb") as opened:
        pair.poll()
        assert opened.read() == b"one\n"
    assert [path.name for path in pair.driver.iterdir()] == ["metrics.jsonl"]


def test_a_file_that_is_removed_meanwhile_does_not_hold_up_others(pair, monkeypatch):
    for name in ("metrics.jsonl", "profile/a", "translations/b"):
        pair.write(name, b"1")
    names = NodeMirror._names

    def listed(self, wanted):
        found = names(self, wanted)
        (self.folder / "profile/a").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(NodeMirror, "_names", listed)
    assert pair.poll()
    assert {change.name for change in pair.received} == {"metrics.jsonl", "translations/b"}


def test_bytes_of_the_copy_behind_the_written_ones_go(pair):
    """The driver may have more of a file, which a lost node had sent."""
    pair.write("metrics.jsonl", b"one\n")
    pair.poll()
    with (pair.driver / "metrics.jsonl").open("ab") as copy:
        copy.write(b"lost lines\n")
    pair.write("metrics.jsonl", b"two\n", "ab")
    pair.poll()
    assert pair.read() == b"one\ntwo\n"


def test_a_copy_that_is_shorter_than_the_offset_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"1234")
    change = FileChange("metrics.jsonl", 5, b"6", SentFile(FileStamp(6, 0, 0), 0))
    with pytest.raises(OSError, match="fewer than 5 bytes"):
        change.apply(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"1234"


@pytest.mark.parametrize("most", [1, 3, 4, 5])
def test_large_changes_arrive_over_several_polls(pair, monkeypatch, most):
    monkeypatch.setattr(node_mirror, "MAX_ANSWER_BYTES", most)
    files = {"metrics.jsonl": b"123456789", "wandb/a": b"abcd", "translations/b": b"xyz"}
    for name, data in files.items():
        pair.write(name, data)
    polls = 0
    while not pair.poll():
        polls += 1
        assert polls < 30
        pair.write("metrics.jsonl", b"", "ab")
    assert {name: pair.read(name) for name in files} == files


def test_only_the_named_files_are_considered(pair):
    for name in ("metrics.jsonl", "profile/steps/rank-1.json"):
        pair.write(name, b"1")
    changes, is_all = pair.node.changes({}, SHARED_RANK_FILES)
    assert ([change.name for change in changes], is_all) == (["profile/steps/rank-1.json"], True)


def test_a_link_is_not_followed(pair, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (pair.node.folder / "metrics.jsonl").symlink_to(tmp_path / "secret")
    pair.poll()
    assert pair.received == []
