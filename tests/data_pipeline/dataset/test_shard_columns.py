"""The list of shards as a file of columns: same identity as in JSON, and verified on loading."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.data_settings import settings_of
from support.files.faulty_server import Fault, FaultyServer
from support.files.json_files import edited_json

from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.task import rules_by_corpus
from data_pipeline.batching.window import WindowReader
from data_pipeline.config.data import DataSettings, TokenizerConfig
from data_pipeline.config.pair import PairDataConfig
from data_pipeline.dataset import manifest as manifest_module
from data_pipeline.dataset.manifest import Manifest, archived_name
from data_pipeline.dataset.manifest_header import ShardInfo
from data_pipeline.dataset.shard_columns import COLUMNS_NAME, ShardColumns
from data_pipeline.dataset.verification import problems_of, unknown_files
from data_pipeline.errors import DatasetError, DatasetFileError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.quarantine import quarantine
from data_pipeline.storage import store as store_module
from data_pipeline.storage.store import open_store


@pytest.fixture(autouse=True)
def columns_from_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "MIN_SHARDS_FOR_COLUMNS", 1)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    """Return a copy of the dataset whose list of shards is a file of columns."""
    folder = Path(shutil.copytree(dataset, tmp_path / "copy"))
    load(folder).save_new(folder)
    return folder


def load(folder: Path, identity: str | None = None, retries: int = 0) -> Manifest:
    store = open_store(folder, retry_delays_seconds=(0.001,) * retries)
    return Manifest.load(store, identity)


def shards_of(count: int, name: str = "shards/train-{:05}.tar") -> ShardColumns:
    rng = np.random.default_rng(count)
    pairs = rng.integers(1, 10**6, count).tolist()
    first = np.cumsum([0, *pairs]).tolist()
    return ShardColumns.of(
        [
            ShardInfo(
                name=name.format(number),
                bytes=number * 1000,
                sha256=hashlib.sha256(str(number).encode()).hexdigest(),
                corpus=number // 3,
                pairs=pairs[number],
                first_pair=first[number],
                tokens={"src": 7 * number, "tgt": 10**14 if number == 1 else number},
            )
            for number in range(count)
        ]
    )


@pytest.mark.parametrize("count", [0, 1, 2, 2047, 2048, 2049, 5000])
@pytest.mark.parametrize("name", ["shards/train-{:05}.tar", "größe/t日本-{:05}.tar", "{}"])
def test_the_json_lines_of_columns_equal_those_of_the_shards(count: int, name: str) -> None:
    shards = shards_of(count, name)
    expected = ",\n".join("  " + json.dumps(shard.model_dump()) for shard in shards)
    assert b"".join(shards.json_lines()) == expected.encode()


def test_shards_that_are_read_from_a_columns_file_are_equal() -> None:
    shards = shards_of(3000)
    data = shards.to_bytes()
    table = shards.table("0" * 64)
    assert table.bytes == len(data)
    again = ShardColumns.from_bytes(data, table)
    assert again.to_bytes() == data
    assert list(again) == list(shards)
    assert list(again.names()) == [shard.name for shard in shards]
    assert again[-1] == shards[2999]
    assert shards_of(1)[-1].name == "shards/train-00000.tar"
    with pytest.raises(IndexError):
        again[3000]


def test_both_forms_have_the_same_identity_and_windows(
    dataset: Path, copy: Path, data_settings: Callable[..., DataSettings]
) -> None:
    old, new = load(dataset), load(copy)
    assert json.loads((copy / "manifest.json").read_bytes())["format"] == "transloom-dataset/3"
    assert not old.columns_files()
    assert [info.file for info in new.columns_files()] == [COLUMNS_NAME]
    assert (new.identity, new.origin) == (old.identity, old.origin)
    assert new.header() == old.header()
    assert list(new.shards) == list(old.shards)
    assert new.to_bytes() == (dataset / "manifest.json").read_bytes()
    assert load(copy, old.identity).identity == old.identity
    assert hashlib.sha256((copy / "manifest.json").read_bytes()).hexdigest() != new.identity
    readers = [
        WindowReader(open_store(folder), manifest, data_settings(dataset))
        for folder, manifest in ((dataset, old), (copy, new))
    ]
    for window in range(readers[0].layout(0, 0).windows_per_epoch):
        one, other = (reader.fetch(0, window, 0, 3) for reader in readers)
        assert len(one) == len(other) == 3
        for before, after in zip(one, other, strict=True):
            assert before.pair_ids.tolist() == after.pair_ids.tolist()
            for name, field in before.fields.items():
                assert isinstance(field, FieldArrays)
                assert field.ids.tobytes() == after.fields[name].ids.tobytes()


def test_preparation_gives_the_same_identity_in_both_forms(
    tmp_path: Path,
    manifest: Manifest,
    data_config: Callable[..., PairDataConfig],
    tokenizer_config: TokenizerConfig,
) -> None:
    folder = tmp_path / "prepared"
    prepared = prepare(settings_of(data_config(folder), tokenizer_config), lambda _: None)
    assert (folder / COLUMNS_NAME).is_file()
    assert prepared.identity == manifest.identity
    again = prepare(settings_of(data_config(folder), tokenizer_config), lambda _: None)
    assert again.identity == manifest.identity


def test_short_lists_stay_in_the_manifest(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_module, "MIN_SHARDS_FOR_COLUMNS", 1_000)
    load(dataset).save_new(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_bytes() == (dataset / "manifest.json").read_bytes()


def test_the_columns_file_is_one_of_the_dataset_s_files(copy: Path) -> None:
    manifest = load(copy)
    sha256 = hashlib.sha256((copy / COLUMNS_NAME).read_bytes()).hexdigest()
    assert (COLUMNS_NAME, sha256) in list(manifest.files())
    assert unknown_files(copy, manifest) == []
    assert problems_of(str(copy), manifest, rules_by_corpus(manifest), 1, lambda *_: None) == []


def test_quarantine_keeps_the_columns_file_and_can_be_undone(copy: Path, dataset: Path) -> None:
    parent = load(copy)
    columns = (copy / COLUMNS_NAME).stat()
    lost = parent.shards[3].name
    child = quarantine(copy, [lost], "lost")
    assert (copy / COLUMNS_NAME).stat() == columns
    assert child.columns_files() == parent.columns_files()
    assert child.descends_from(parent.identity)
    assert child.left_out == {lost}
    assert np.flatnonzero(~child.shards_in_training()).tolist() == [3]
    # A run that started with the parent continues to read it.
    assert load(copy, parent.identity).left_out == set()
    archived = copy / archived_name(parent.identity)
    assert archived.read_bytes() == (dataset / "manifest.json").read_bytes()
    archived.rename(copy / "manifest.json")
    assert load(copy).header() == parent.header()


def test_a_child_keeps_the_form_of_its_parent(dataset: Path, tmp_path: Path) -> None:
    """So, only the new manifest must be copied to other copies of the dataset."""
    folder = Path(shutil.copytree(dataset, tmp_path / "plain"))
    child = quarantine(folder, [load(folder).shards[2].name], "lost")
    assert not child.columns_files()
    assert not (folder / COLUMNS_NAME).exists()


def test_a_child_has_the_same_identity_in_both_forms(copy: Path, dataset: Path) -> None:
    plain = copy.with_name("plain")
    shutil.copytree(dataset, plain)
    name = load(plain).shards[2].name
    child = quarantine(copy, [name], "lost")
    (copy / "manifest.json").write_bytes(child.to_bytes())
    assert load(copy).identity == child.identity
    assert child.identity == hashlib.sha256(child.to_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], r"shards.columns .*bytes"),
        (lambda data: data + b"x", r"shards.columns .*bytes"),
        (lambda data: b"\1" + data[1:], r"shards.columns .*sha256"),
        (lambda data: data[:-1] + b"x", r"shards.columns .*sha256"),
    ],
)
def test_a_damaged_columns_file_is_reported(
    copy: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = copy / COLUMNS_NAME
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetFileError, match=message):
        load(copy)


def test_a_damaged_columns_file_is_replaced_on_request(
    copy: Path,
    data_config: Callable[..., PairDataConfig],
    tokenizer_config: TokenizerConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_module, "wait_before_retry", lambda *_: None)
    whole = (copy / COLUMNS_NAME).read_bytes()
    (copy / COLUMNS_NAME).write_bytes(whole[:-1])
    settings = settings_of(data_config(copy), tokenizer_config)
    with pytest.raises(DatasetError, match=rf"{COLUMNS_NAME} is damaged: .* --overwrite"):
        prepare(settings, lambda _: None)
    prepare(settings, lambda _: None, overwrite=True)
    assert (copy / COLUMNS_NAME).read_bytes() == whole


def test_a_missing_columns_file_is_reported(copy: Path) -> None:
    (copy / COLUMNS_NAME).unlink()
    with pytest.raises(DatasetFileError, match=r"shards.columns .*no readable file"):
        load(copy, "0" * 64)


def _set(column: int, shard: int, value: int) -> Callable[[bytearray], None]:
    """Return a function that sets a value of a column, for a dataset of 8 shards."""

    def change(data: bytearray) -> None:
        start = 8 * (8 * column + shard)
        data[start : start + 8] = value.to_bytes(8, "little", signed=True)

    return change


def _rename(old: bytes, new: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        position = data.rindex(old)
        data[position : position + len(old)] = new

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(0, 2, -1), "bytes of the shards: -1 to"),
        (_set(0, 2, 10**15 + 1), "bytes of the shards: .* to 1000000000000001, expected"),
        (_set(0, 2, 2**63 - 1), "bytes of the shards"),
        (_set(2, 2, 2**63 - 1), "pairs of the shards"),
        (_set(1, 3, 1), "train-00003.tar has corpus number 1, expected 0 to 0"),
        (_set(2, 0, 0), "pairs of the shards: 0 to 63, expected at least 1"),
        (_set(2, 0, 62), "shards of train have 499 pairs, expected 500"),
        (_set(3, 0, -5), "tokens.src of the shards: -5"),
        (_set(5, 0, 0), "names"),
        (_set(5, 0, -(2**63)), "names"),
        (_set(5, 6, 2**63 - 1), "names"),
        (_set(5, 7, 5), "names"),
        (_rename(b"shards/train-00003", b"../rds/train-00003"), "'../rds/train-00003.tar'"),
        (_rename(b"shards/train-00003", b"/hards/train-00003"), "pattern"),
        (_rename(b"00003.tar", b"00003.ta/"), "pattern"),
        (_rename(b"train-00003", b"train\x00" + b"00003"), "pattern"),
        (_rename(b"s/train-00003", b"s//rain-00003"), "pattern"),
        (_rename(b"s/train-00003", b"s/.rain-00003"), "pattern"),
        (_rename(b"train-00003", b"tr\xc3\xa4n-00003"), "pattern"),
    ],
)
def test_invalid_values_in_columns_are_refused(
    copy: Path, change: Callable[[bytearray], None], message: str
) -> None:
    """The size and the hash of the file match the manifest."""
    data = bytearray((copy / COLUMNS_NAME).read_bytes())
    change(data)
    (copy / COLUMNS_NAME).write_bytes(data)
    with edited_json(copy / "manifest.json") as content:
        content["shards"]["sha256"] = hashlib.sha256(data).hexdigest()
    with pytest.raises(DatasetError, match=rf"shards.columns of .* is damaged: .*{message}"):
        load(copy)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"shards": 9}, r"shards.columns .*bytes"),
        ({"shards": 10**9}, "shards"),
        ({"shards": 0}, "shards"),
        ({"name_bytes": 10**12}, "name_bytes"),
        ({"fields": ["src"]}, r"shards.columns .*bytes"),
        ({"fields": ["src", "%d"]}, "fields"),
        ({"fields": ["src", "other"]}, "tokens of shards/train-00000.tar: expected the fields"),
        ({"fields": ["src", "src"]}, "tokens of shards/train-00000.tar: expected the fields"),
        ({"file": "../shards.columns"}, "file"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_table_that_does_not_match_its_file_is_refused(
    copy: Path, table: dict[str, object], message: str
) -> None:
    with edited_json(copy / "manifest.json") as content:
        content["shards"] |= table
    with pytest.raises(DatasetError, match=message):
        load(copy)


@pytest.mark.parametrize("shards", [None, [], "shards.columns", {}])
def test_a_manifest_without_a_table_is_refused(copy: Path, shards: object) -> None:
    with edited_json(copy / "manifest.json") as content:
        content["shards"] = shards
    with pytest.raises(DatasetError, match="damaged"):
        load(copy)


def test_a_change_of_any_value_changes_the_identity(copy: Path) -> None:
    identity = load(copy).identity
    with edited_json(copy / "manifest.json") as content:
        content["corpora"][0]["tag"] = "<x>"
    assert load(copy).identity != identity
    with pytest.raises(DatasetFileError, match=f"expected sha256 {identity}"):
        load(copy, identity)


def test_a_remote_columns_file_is_read_once_per_node_and_again_after_failures(
    copy: Path, tmp_path: Path
) -> None:
    identity = load(copy).identity
    with FaultyServer(copy) as server:
        server.fail(Fault.TRUNCATED, COLUMNS_NAME, on={1})
        server.fail(Fault.BIT_FLIP, COLUMNS_NAME, on={2})
        store = open_store(server.url, cache=tmp_path / "cache", retry_delays_seconds=(0.001,) * 3)
        assert Manifest.load(store, identity).identity == identity
        assert server.requests[COLUMNS_NAME] == 3
        assert Manifest.load(store, identity).identity == identity
        assert server.requests[COLUMNS_NAME] == 3
        # A store may return an older manifest for a while.
        current = (copy / "manifest.json").read_bytes()
        child = quarantine(copy, [load(copy).shards[0].name], "lost")
        newest = (copy / "manifest.json").read_bytes()
        (copy / "manifest.json").write_bytes(current)
        requests = server.requests["manifest.json"]
        with pytest.raises(DatasetFileError):
            Manifest.load(store, child.identity)
        assert server.requests["manifest.json"] == requests + 1 + 4
        (copy / "manifest.json").write_bytes(newest)
        assert Manifest.load(store, child.identity).identity == child.identity
