"""Small files as parts: what is fetched is what was uploaded, with few parts and few bytes."""

import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.storage.object_errors import ObjectMissingError
from data_pipeline.storage.object_store import StoredObject
from trainer.errors import RunMismatchError
from trainer.runs.remote import files as files_module
from trainer.runs.remote.files import FileFetcher, UploadedFiles, local_files

NAME = "metrics.jsonl"


class Objects:
    """Objects in a dict, and the bytes that were put there and fetched."""

    url = "s3://bucket/run"

    def __init__(self):
        self.objects = {}
        self.put_bytes = self.got_bytes = 0

    def put(self, data):
        name = f"object-{len(self.objects)}"
        self.objects[name] = bytes(data)
        self.put_bytes += len(data)
        return name

    def get(self, name, most):
        if name not in self.objects:
            raise ObjectMissingError(name)
        self.got_bytes += len(self.objects[name])
        return StoredObject(self.objects[name], "")


def write(path, data):
    """As a writer that replaces a file, with another time whatever the clock's resolution."""
    new = path.with_name("new.unfinished")
    new.write_bytes(data)
    new.replace(path)


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.binary(max_size=30)),
        st.tuples(st.just("replace"), st.binary(max_size=30)),
        st.tuples(st.just("cut"), st.integers(0, 20)),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(changes=CHANGES, fetches=st.lists(st.booleans(), min_size=12, max_size=12))
def test_what_is_fetched_is_what_was_uploaded(tmp_path_factory, changes, fetches):
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    objects, uploaded = Objects(), UploadedFiles(source)
    fetcher = FileFetcher(objects, target)
    path = source / NAME
    path.touch()
    for number, ((kind, value), fetch) in enumerate(zip(changes, fetches, strict=False)):
        before = path.read_bytes()
        if kind == "append":
            with path.open("ab") as file:
                file.write(value)
        else:
            write(path, value if kind == "replace" else before[:value])
        os.utime(path, ns=(number, number))
        for name in uploaded.changed():
            uploaded.upload(name, objects.put)
        if fetch:
            fetcher.fetch(NAME, uploaded.parts[NAME])
            assert (target / NAME).read_bytes() == path.read_bytes()
    assert list(uploaded.changed()) == ([] if changes else [NAME])


def test_a_growing_file_has_few_parts_and_uploads_each_byte_a_few_times(tmp_path):
    objects, uploaded = Objects(), UploadedFiles(tmp_path)
    lines = 1000
    for number in range(lines):
        with (tmp_path / NAME).open("ab") as file:
            file.write(b"x" * 100)
        os.utime(tmp_path / NAME, ns=(number, number))
        uploaded.upload(NAME, objects.put)
    size = lines * 100
    assert len(uploaded.parts[NAME]) <= math.log2(lines) + 1
    assert objects.put_bytes <= size * (math.log2(lines) + 1)


def test_parts_stay_below_their_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "MAX_PART_BYTES", 64)
    objects, uploaded = Objects(), UploadedFiles(tmp_path)
    for size in (10, 200, 30, 31, 32, 100):
        with (tmp_path / NAME).open("ab") as file:
            file.write(os.urandom(size))
        uploaded.upload(NAME, objects.put)
    assert max(part.bytes for part in uploaded.parts[NAME]) <= 64
    FileFetcher(objects, tmp_path / "copy").fetch(NAME, uploaded.parts[NAME])
    assert (tmp_path / "copy" / NAME).read_bytes() == (tmp_path / NAME).read_bytes()


def test_a_copy_that_has_the_beginning_fetches_the_rest(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    objects, uploaded = Objects(), UploadedFiles(source)
    (source / NAME).write_bytes(b"a" * 10_000)
    uploaded.upload(NAME, objects.put)
    FileFetcher(objects, target).fetch(NAME, uploaded.parts[NAME])
    with (source / NAME).open("ab") as file:
        file.write(b"b" * 10)
    uploaded.upload(NAME, objects.put)
    objects.got_bytes = 0
    FileFetcher(objects, target).fetch(NAME, uploaded.parts[NAME])
    assert objects.got_bytes == 10
    assert (target / NAME).read_bytes() == b"a" * 10_000 + b"b" * 10


def test_a_fetched_file_has_the_time_of_its_original(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    objects, uploaded = Objects(), UploadedFiles(source)
    (source / NAME).write_bytes(b"a")
    for time in (1_000_000.0, 2_000_000.0):
        os.utime(source / NAME, (time, time))
        (name,) = uploaded.changed()
        uploaded.upload(name, objects.put)
        FileFetcher(objects, target).fetch(NAME, uploaded.parts[NAME])
        assert (target / NAME).stat().st_mtime == time
    assert len(objects.objects) == 1


def test_a_damaged_part_is_named_and_changes_nothing(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    objects, uploaded = Objects(), UploadedFiles(source)
    (source / NAME).write_bytes(b"a")
    uploaded.upload(NAME, objects.put)
    objects.objects["object-0"] = b"b"
    with pytest.raises(
        RunMismatchError, match=r"s3://bucket/run/object-0 has .* expected 1 .* damaged"
    ):
        FileFetcher(objects, target).fetch(NAME, uploaded.parts[NAME])
    assert not (target / NAME).exists()


def test_links_and_files_of_one_node_are_not_mirrored(tmp_path):
    for name in ("metrics.jsonl", "owners/1.json", "control/stop", "a/b", "x.unfinished", ".lock"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "link").symlink_to(Path("/etc/passwd"))
    assert sorted(local_files(tmp_path)) == ["a/b", "metrics.jsonl"]


def test_bytes_that_are_appended_during_an_upload_are_a_change(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    objects, uploaded = Objects(), UploadedFiles(source)
    (source / NAME).write_bytes(b"one\n")

    def put_while_written(data):
        with (source / NAME).open("ab") as file:
            file.write(b"two\n")
        return objects.put(data)

    uploaded.upload(NAME, put_while_written)
    assert uploaded.changed() == [NAME]
    uploaded.upload(NAME, objects.put)
    assert uploaded.changed() == []
    FileFetcher(objects, target).fetch(NAME, uploaded.parts[NAME])
    assert (target / NAME).read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("in_place", [True, False])
def test_a_rewrite_of_equal_size_and_tail_is_uploaded(tmp_path, in_place):
    objects, uploaded = Objects(), UploadedFiles(tmp_path)
    path = tmp_path / NAME
    path.write_bytes(b"first part, ")
    uploaded.upload(NAME, objects.put)
    with path.open("ab") as file:
        file.write(b"tail")
    uploaded.upload(NAME, objects.put)
    assert len(uploaded.parts[NAME]) == 2
    changed = b"other part, tail"
    path.write_bytes(changed) if in_place else write(path, changed)
    uploaded.upload(NAME, objects.put)
    assert b"".join(objects.objects[part.name] for part in uploaded.parts[NAME]) == changed


@pytest.mark.parametrize("size", [0, 5, 12, 14])
def test_what_is_cut_off_is_not_stored(tmp_path, size):
    objects, uploaded = Objects(), UploadedFiles(tmp_path)
    path = tmp_path / NAME
    for data in (b"first part, ", b"tail"):
        with path.open("ab") as file:
            file.write(data)
        uploaded.upload(NAME, objects.put)
    os.truncate(path, size)
    uploaded.upload(NAME, objects.put)
    stored = b"".join(objects.objects[part.name] for part in uploaded.parts[NAME])
    assert stored == b"first part, tail"[:size]
