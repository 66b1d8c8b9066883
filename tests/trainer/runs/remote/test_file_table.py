"""Tables of files: what a writer accepts, a reader reads, and nothing else."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.storage.object_store import StoredObject
from foundation.file_model import parse_json
from trainer.errors import RunMismatchError
from trainer.runs.remote.file_table import (
    INDEX_LIMITS,
    MAX_COMPONENT_BYTES,
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_FILES,
    MAX_PART_BYTES,
    FileIndex,
    FilePart,
    FileTable,
    TableReader,
    file_part,
    name_problem,
    usage,
    write_index,
)

HASH = "0" * 64


class Objects:
    """Objects in a dict."""

    url = "s3://bucket/run"

    def __init__(self):
        self.objects = {}

    def put(self, data):
        self.objects[f"owners/00000001/{len(self.objects)}"] = data
        return f"owners/00000001/{len(self.objects) - 1}"

    def get(self, name, most):
        assert len(self.objects[name]) <= most
        return StoredObject(self.objects[name], "")


def files_of(count, name=None):
    return {
        (at := name or f"translations/validation-{number:08d}.txt"): [
            FilePart.model_construct(
                name=f"owners/00000001/files/{at}/{number:012x}",
                bytes=MAX_PART_BYTES,
                sha256=HASH,
                modified=1732622222.1234567,
            )
        ]
        for number in range(count)
    }


@pytest.mark.long
def test_as_many_files_as_allowed_are_written_and_read():
    objects, files = Objects(), files_of(MAX_FILES)
    table = FileTable.of(files, objects.put)
    assert not table.entries
    assert max(map(len, objects.objects.values())) <= MAX_PART_BYTES
    assert len(objects.objects) == len(table.index) > 1
    found = TableReader(objects).files(table)
    assert found.keys() == files.keys()
    assert usage(files) == 1.0


def test_a_writer_refuses_what_no_reader_reads():
    files = files_of(MAX_FILES + 1)
    with pytest.raises(RunMismatchError, match=r"at most 100,000 .* here are 100,001\. Remove"):
        write_index(files, Objects().put)


def test_a_few_files_need_no_index():
    objects, files = Objects(), files_of(MAX_ENTRIES)
    assert FileTable.of(files, objects.put) == FileTable(entries=files)
    assert not objects.objects


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=30),
        min_size=1,
        max_size=8,
        unique=True,
    ),
    count=st.integers(1, 5),
)
def test_the_usage_is_an_upper_limit_of_what_a_reader_counts(names, count):
    files = {name: count * files_of(1, name)[name] for name in names}
    data = FileIndex.model_construct(files=files).model_dump_json().encode()
    share = usage(files)
    assert len(data) - 12 <= share * INDEX_LIMITS.bytes
    values = sum(map(data.count, (b",", b"[", b"{")))
    assert values <= share * INDEX_LIMITS.values + 3
    parse_json(data)


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
def test_some_names_cannot_be_listed(name, problem):
    found = name_problem(name)
    assert (problem is None and found is None) or problem in found


def test_an_object_that_is_named_twice_is_refused():
    objects = Objects()
    part = file_part(objects.put(b"x"), b"x")
    for table in (
        FileTable(entries={"a": [part, part]}),
        FileTable(entries={"a": [part], "b": [part]}),
    ):
        with pytest.raises(RunMismatchError, match="2 times, expected once"):
            TableReader(objects).files(table)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modified", 1e308),
        ("modified", -1.0),
        ("bytes", MAX_PART_BYTES + 1),
        ("name", "../other/secret"),
        ("name", "a\nb"),
    ],
)
def test_a_part_beyond_the_limits_is_refused(field, value):
    part = {"name": "owners/00000001/x", "bytes": 1, "sha256": HASH, field: value}
    objects = Objects()
    data = json.dumps({"files": {"a": [part]}}).encode()
    index = [file_part(objects.put(data), data).model_dump()]
    with pytest.raises(RunMismatchError, match=f"damaged.*{field}"):
        TableReader(objects).files(FileTable.model_validate({"index": index}))


def test_an_index_larger_than_its_limit_is_not_read():
    part = file_part("owners/00000001/x", b"").model_dump() | {"bytes": MAX_PART_BYTES}
    count = INDEX_LIMITS.bytes // MAX_PART_BYTES + 1
    index = [part | {"name": f"owners/00000001/{number}"} for number in range(count)]
    with pytest.raises(RunMismatchError, match=f"at most {INDEX_LIMITS.bytes:,}"):
        TableReader(Objects()).files(FileTable.model_validate({"index": index}))
