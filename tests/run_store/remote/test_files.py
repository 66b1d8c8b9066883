"""Small files as objects: a fetched file equals the uploaded one, and no object is overwritten."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.storage.object_errors import ObjectMissingError
from data_pipeline.storage.object_store import StoredObject
from run_store.errors import RunMismatchError
from run_store.remote import files as files_module
from run_store.remote.files import (
    BYTES_PER_FILE,
    MAX_COMPONENT_BYTES,
    MAX_DEPTH,
    MAX_FILES,
    MAX_TABLE_BYTES,
    FileObjects,
    KnownFiles,
    local_files,
    name_problem,
    objects_of,
    storable_files,
    usage,
)
from run_store.remote.head import HEAD_LIMITS, RunHead

NAME = "metrics.jsonl"
CHUNK = 8


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(files_module, "CHUNK_BYTES", CHUNK)


class Objects:
    """Object store in a dict that counts the bytes stored and fetched."""

    url = "s3://bucket/run"

    def __init__(self):
        self.objects = {}
        self.put_bytes = self.got_bytes = 0

    def put(self, name, data):
        assert self.objects.setdefault(name, bytes(data)) == data  # no object is overwritten
        self.put_bytes += len(data)

    def get(self, name, most):
        if name not in self.objects:
            raise ObjectMissingError(name)
        self.got_bytes += len(self.objects[name])
        return StoredObject(self.objects[name], "")


def changed(known):
    return [name for name in local_files(known.folder) if not known.is_unchanged(name)]


def stored(objects, file):
    return b"".join(objects.objects[name] for name in file.objects(NAME))


def write(path, data):
    """Replace a file by renaming, so that it is a change whatever the resolution of file times."""
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
def test_fetched_files_equal_the_uploaded_ones(tmp_path_factory, changes, fetches):
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    objects, known, copy = Objects(), KnownFiles(source), KnownFiles(target)
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
        for name in changed(known):
            known.upload(objects, name, 1)
        assert stored(objects, known.files[NAME]) == path.read_bytes()
        if fetch:
            copy.fetch(objects, NAME, known.files[NAME])
            assert (target / NAME).read_bytes() == path.read_bytes()
    assert changed(known) == ([] if changes else [NAME])


def test_a_growing_file_uploads_only_its_last_chunk_again(tmp_path):
    objects, known = Objects(), KnownFiles(tmp_path)
    for number in range(100):
        with (tmp_path / NAME).open("ab") as file:
            file.write(b"%03d\n" % number)
        os.utime(tmp_path / NAME, ns=(number, number))
        known.upload(objects, NAME, 1)
    assert len(known.files[NAME].chunks) == 400 / CHUNK
    assert objects.put_bytes <= 100 * CHUNK


def test_a_copy_that_has_the_beginning_of_a_file_fetches_only_the_rest(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    objects, known = Objects(), KnownFiles(source)
    (source / NAME).write_bytes(b"a" * 10 * CHUNK)
    known.upload(objects, NAME, 1)
    KnownFiles(target).fetch(objects, NAME, known.files[NAME])
    with (source / NAME).open("ab") as file:
        file.write(b"b" * 5)
    known.upload(objects, NAME, 2)
    objects.got_bytes = 0
    KnownFiles(target).fetch(objects, NAME, known.files[NAME])  # as in another process
    assert objects.got_bytes == 5
    assert (target / NAME).read_bytes() == b"a" * 10 * CHUNK + b"b" * 5


def test_a_fetched_file_has_the_modification_time_of_its_original(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    objects, known = Objects(), KnownFiles(source)
    (source / NAME).write_bytes(b"a")
    for time in (1_000_000.0, 2_000_000.0):
        os.utime(source / NAME, (time, time))
        (name,) = changed(known)
        known.upload(objects, name, 1)
        KnownFiles(target).fetch(objects, NAME, known.files[NAME])
        assert (target / NAME).stat().st_mtime == time
    assert len(objects.objects) == 1


@pytest.mark.parametrize("data", [b"b", b"ab", b""])
def test_a_damaged_object_is_named_and_no_file_is_written(tmp_path, data):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    objects, known = Objects(), KnownFiles(source)
    (source / NAME).write_bytes(b"a")
    known.upload(objects, NAME, 1)
    (name,) = objects.objects
    objects.objects[name] = data
    with pytest.raises(RunMismatchError, match=f"s3://bucket/run/{name} has .* expected 1 "):
        KnownFiles(target).fetch(objects, NAME, known.files[NAME])
    assert not (target / NAME).exists()


def test_the_name_of_an_object_contains_the_number_of_its_owner(tmp_path):
    (tmp_path / NAME).write_bytes(b"a" * CHUNK)
    objects, known = Objects(), KnownFiles(tmp_path)
    known.upload(objects, NAME, 7)
    assert [name.split("-")[0] for name in objects.objects] == [f"{NAME}/00000"]
    with (tmp_path / NAME).open("ab") as more:
        more.write(b"b")
    known.upload(objects, NAME, 9)
    later = known.files[NAME]
    assert [chunk.partition("-")[0] for chunk in later.chunks] == ["7", "9"]
    assert objects_of({NAME: later}) == set(objects.objects)


def test_links_hidden_and_node_specific_files_are_not_mirrored(tmp_path):
    for name in ("metrics.jsonl", "owners/1.json", "control/stop", "a/b", "x.unfinished", ".lock"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "link").symlink_to(Path("/etc/passwd"))
    assert sorted(local_files(tmp_path)) == ["a/b", "metrics.jsonl"]


def test_bytes_appended_during_an_upload_count_as_a_change(tmp_path):
    objects, known = Objects(), KnownFiles(tmp_path)
    (tmp_path / NAME).write_bytes(b"one\n")
    put = objects.put

    def put_while_written(name, data):
        with (tmp_path / NAME).open("ab") as file:
            file.write(b"two\n")
        put(name, data)

    objects.put = put_while_written
    known.upload(objects, NAME, 1)
    assert changed(known) == [NAME]
    objects.put = put
    known.upload(objects, NAME, 1)
    assert changed(known) == []
    assert stored(objects, known.files[NAME]) == b"one\ntwo\n"


@pytest.mark.parametrize(("in_place", "more"), [(True, b""), (False, b""), (False, b" and more")])
def test_a_rewritten_file_with_an_equal_tail_is_uploaded(tmp_path, in_place, more):
    objects, known = Objects(), KnownFiles(tmp_path)
    path = tmp_path / NAME
    path.write_bytes(b"first part, and a long tail")
    known.upload(objects, NAME, 1)
    content = b"other part, and a long tail" + more
    path.write_bytes(content) if in_place else write(path, content)
    known.upload(objects, NAME, 1)
    assert stored(objects, known.files[NAME]) == content


@pytest.mark.parametrize("data", [b"another", b"beginning that stays, and another tail"])
def test_a_replaced_file_is_fetched_into_a_new_file(tmp_path, data):
    """Readers keep the old content until the new file is complete; appended bytes are dropped."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    objects, known, copy = Objects(), KnownFiles(source), KnownFiles(target)
    for content in (b"beginning that stays", data):
        write(source / NAME, content)
        known.upload(objects, NAME, 1)
        if content != data:
            copy.fetch(objects, NAME, known.files[NAME])
    with (target / NAME).open("rb") as opened, (target / NAME).open("ab") as other:
        other.write(b"lost lines")
        other.flush()
        copy.fetch(objects, NAME, known.files[NAME])
        assert opened.read() == b"beginning that stays" + b"lost lines"
    assert (target / NAME).read_bytes() == data
    assert [path.name for path in target.iterdir()] == [NAME]


@pytest.mark.parametrize("size", [0, 5, 12, 14])
def test_a_truncated_file_is_stored_with_its_new_length(tmp_path, size):
    objects, known = Objects(), KnownFiles(tmp_path)
    path = tmp_path / NAME
    path.write_bytes(b"first part, tail")
    known.upload(objects, NAME, 1)
    os.truncate(path, size)
    known.upload(objects, NAME, 1)
    assert stored(objects, known.files[NAME]) == b"first part, tail"[:size]


@pytest.mark.parametrize(
    "file",
    [
        {"bytes": CHUNK + 1, "chunks": ["1-" + "0" * 32]},
        {"bytes": 0, "chunks": ["1-" + "0" * 32]},
        {"bytes": 1, "chunks": ["1-../../secret"]},
        {"bytes": 1, "chunks": ["1-" + "0" * 32], "modified": 1e308},
        {"bytes": -1, "chunks": []},
    ],
)
def test_a_file_entry_beyond_the_limits_is_refused(file):
    with pytest.raises(ValueError, match="validation error"):
        FileObjects.model_validate(file)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=30),
        max_size=8,
        unique=True,
    ),
    count=st.integers(0, 5),
)
def test_the_computed_usage_is_at_least_the_size_of_the_file_table(names, count):
    file = FileObjects(
        bytes=count * CHUNK, modified=1732622222.1234567, chunks=count * ["12345678-" + "f" * 32]
    )
    files = dict.fromkeys(names, file)
    size = len(RunHead(files=files).model_dump_json()) - len(RunHead().model_dump_json())
    assert size <= usage(files) * MAX_TABLE_BYTES < HEAD_LIMITS.bytes
    assert usage(files) >= len(files) / MAX_FILES
    assert BYTES_PER_FILE * MAX_FILES < MAX_TABLE_BYTES


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("metrics.jsonl", None),
        ("a/b/ä 1.txt", None),
        ("/".join("d" * MAX_DEPTH), None),
        ("/".join("d" * (MAX_DEPTH + 1)), "33 levels"),
        ("/".join(2_000 * ["d"]), "2,000 levels"),
        ("n" * (MAX_COMPONENT_BYTES + 1), "241 bytes"),
        ("ä" * (MAX_COMPONENT_BYTES // 2 + 1), "242 bytes"),
        ("../x", "leads out"),
        ("a//b", "leads out"),
        ("a/.b", "hidden"),
        ("checkpoints/x", "below checkpoints"),
        ("a\nb", "control"),
        ("a\udcffb", "UTF-8"),
    ],
)
def test_names_that_cannot_be_stored_have_a_problem(name, problem):
    found = name_problem(name)
    assert (problem is None and found is None) or problem in found


def test_more_files_than_the_limit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "MAX_FILES", 2)
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(RunMismatchError, match=r"at most 2 .* here are 3\. Remove"):
        storable_files(tmp_path)
