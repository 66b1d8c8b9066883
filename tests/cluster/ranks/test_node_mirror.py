"""A node's changes, applied to the driver's folder: both have the same files afterwards."""

import os

import pytest

from cluster.ranks import node_mirror
from cluster.ranks.node_mirror import SHARED_RANK_FILES, FileChange, NodeMirror
from trainer.runs.remote.files import FileStamp

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


def test_appended_bytes_alone_are_sent_and_an_equal_file_is_not(pair):
    pair.write("metrics.jsonl", b"one\n")
    pair.write("run.json", b"{}")  # the driver writes this file
    assert pair.poll()
    pair.write("metrics.jsonl", b"two\n", "ab")
    assert pair.poll()
    assert pair.poll()
    assert pair.read() == b"one\ntwo\n"
    assert [(c.offset, c.data) for c in pair.received] == [(0, b"one\n"), (4, b"two\n")]
    assert not (pair.driver / "run.json").exists()


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
    change = FileChange("metrics.jsonl", 5, b"6", FileStamp(6, 0, 0))
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
