"""The manifest: strict parsing, identity, and descent from parent datasets."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.data_settings import settings_of
from support.datasets import edit_manifest

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import PairDataConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import ManifestHeader, Tombstone
from data_pipeline.dataset.shards import unpack_shard
from data_pipeline.errors import DatasetError
from data_pipeline.storage.store import open_store


def load(dataset: Path) -> Manifest:
    return Manifest.load(open_store(dataset))


def save(manifest: Manifest, folder: Path) -> Manifest:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return load(folder)


def leave_out(manifest: Manifest, folder: Path, *numbers: int) -> Manifest:
    """Return the child manifest without these shards."""
    tombstones = tuple(
        Tombstone(shard=manifest.shards[number].name, reason="é", parent=manifest.identity)
        for number in numbers
    )
    child = manifest.model_copy(update={"tombstones": manifest.tombstones + tombstones})
    return save(child, folder)


def test_the_identity_is_the_hash_of_the_file(dataset: Path, manifest: Manifest) -> None:
    data = (dataset / "manifest.json").read_bytes()
    assert manifest.identity == manifest.origin == hashlib.sha256(data).hexdigest()


def test_saving_a_loaded_manifest_gives_the_same_file(dataset: Path, manifest: Manifest) -> None:
    assert manifest.to_bytes() == (dataset / "manifest.json").read_bytes()


def test_values_of_any_kind_are_read_back_as_saved(manifest: Manifest, tmp_path: Path) -> None:
    odd = {"ä\u2028\n": [1.0, 1e-7, 10**20, True, None, "\x00", {"": []}]}
    saved = save(manifest.model_copy(update={"preparation": odd}), tmp_path)
    assert saved.preparation == odd
    assert save(saved, tmp_path).identity == saved.identity


def test_a_manifest_describes_the_dataset(dataset: Path, manifest: Manifest) -> None:
    assert [(field.name, field.role, field.language) for field in manifest.fields] == [
        ("src", "source", "xx"),
        ("tgt", "target", "yy"),
    ]
    (corpus,) = manifest.corpora
    assert corpus.name == "train"
    assert corpus.read == 500 == manifest.pairs + sum(corpus.dropped.values())
    assert [pairs.tolist() for pairs in manifest.shard_pairs()] == [[63] * 4 + [62] * 4]
    assert {name: info.pairs for name, info in manifest.heldout.items()} == {
        "validation": 40,
        "small": 30,
    }
    files = {str(path.relative_to(dataset)) for path in dataset.rglob("*") if path.is_file()}
    assert files == {"manifest.json", *(name for name, _ in manifest.files())}
    for name, sha256 in manifest.files():
        assert hashlib.sha256((dataset / name).read_bytes()).hexdigest() == sha256


def test_lengths_are_those_of_the_shards(dataset: Path, manifest: Manifest) -> None:
    found: dict[str, list[int]] = {"src": [], "tgt": []}
    for shard in manifest.shards:
        for block in unpack_shard((dataset / shard.name).read_bytes(), shard):
            for field, arrays in block.fields.items():
                found[field] += arrays.lengths.tolist()
    assert all(found.values())
    for field, lengths in found.items():
        assert manifest.lengths[field] == tuple(np.bincount(lengths).tolist())
        assert manifest.longest()[field] == max(lengths)


def test_a_missing_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="transloom-dataset/1"), "format 'transloom-dataset/1'.* reads"),
        (lambda m: m.update(format=["x"]), r"format \['x'\]"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m["shards"].pop(0), "starts at pair 63, expected 0"),
        (lambda m: m["corpora"][0].update(kept=3), "shards of train have 500 pairs, expected 3"),
        (lambda m: m["shards"][3].update(corpus=1), "has corpus number 1, expected 0 to 0"),
        (lambda m: m["shards"][0].update(name="../../etc/passwd"), "pattern"),
        (lambda m: m["cleaning"].update(file="/etc/passwd"), "pattern"),
        (lambda m: m["shards"][0].update(pairs=-1), "shards.0.pairs"),
        (lambda m: m["shards"][0].update(sha256="0"), "shards.0.sha256"),
        (
            lambda m: m["tombstones"].append(
                {"shard": "shards/x.tar", "reason": "", "parent": "0" * 64}
            ),
            "shards/x.tar, which is not a shard",
        ),
    ],
)
def test_damaged_manifests_fail(copy: Path, change: Callable[[dict], object], message: str) -> None:
    edit_manifest(copy, change)
    with pytest.raises(DatasetError, match=message):
        load(copy)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'"transloom-dataset/2"', b"\xff\xfe", b"{}"]
)
def test_a_manifest_that_is_no_json_object_is_refused(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"manifest"):
        load(copy)


def test_children_descend_from_their_ancestors(manifest: Manifest, tmp_path: Path) -> None:
    names = [shard.name for shard in manifest.shards]
    child = leave_out(manifest, tmp_path, 1, 6)
    grandchild = leave_out(child, tmp_path, 0)
    family = (manifest, child, grandchild)
    assert {member.origin for member in family} == {manifest.identity}
    left_out = [set(), {names[1], names[6]}, {names[0], names[1], names[6]}]
    for number, member in enumerate(family):
        assert member.left_out == left_out[number]
        assert member.pairs == 500
        for before, ancestor in enumerate(family):
            assert member.descends_from(ancestor.identity) == (before <= number)
            if before <= number:
                since = left_out[number] - left_out[before]
                assert member.left_out_since(ancestor.identity) == since
    assert not grandchild.descends_from("0" * 64)
    assert {name for name, _ in grandchild.files()}.isdisjoint(left_out[2])


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["shards"][0].update(sha256="0" * 64),
        lambda m: m["preparation"]["data"].update(max_source_length=7),
        lambda m: m["tombstones"][0].update(shard="shards/train-00003.tar"),
        lambda m: m["tombstones"].insert(0, m["tombstones"][0] | {"parent": "1" * 64}),
    ],
)
def test_a_child_with_other_changes_is_no_descendant(
    manifest: Manifest, tmp_path: Path, change: Callable[[dict], object]
) -> None:
    child = leave_out(manifest, tmp_path, 1)
    leave_out(child, tmp_path, 2)
    edit_manifest(tmp_path, change)
    tampered = load(tmp_path)
    assert tampered.descends_from(tampered.identity)
    assert not tampered.descends_from(child.identity)
    only_the_first_tombstone = tampered.tombstones[0].shard == "shards/train-00003.tar"
    assert tampered.descends_from(manifest.identity) == only_the_first_tombstone


def test_differences_name_settings_with_both_values(
    manifest: Manifest,
    data_config: Callable[..., PairDataConfig],
    tokenizer_config: TokenizerConfig,
) -> None:
    elsewhere = data_config(Path("/elsewhere"), mirror="/mirror")
    assert manifest.differences(settings_of(elsewhere, tokenizer_config)) == []
    other = data_config(Path("x"), max_source_length=9, tests={})
    size = TokenizerConfig(vocabulary_size=121)
    assert [line.split(":")[0] for line in manifest.differences(settings_of(other, size))] == [
        "data.max_source_length",
        "data.tests.small.source",
        "data.tests.small.target",
        "tokenizer.vocabulary_size",
    ]
    assert manifest.differences(settings_of(data_config(Path("x")), size)) == [
        "tokenizer.vocabulary_size: 120 in the dataset, 121 in the recipe"
    ]


def test_the_header_contains_everything_but_the_shards(manifest: Manifest, tmp_path: Path) -> None:
    child = leave_out(manifest, tmp_path, 2)
    header = pickle.loads(pickle.dumps(child.header()))  # noqa: S301 - made in this line
    assert header == child.header()
    assert type(header) is ManifestHeader
    assert Manifest.model_fields.keys() - ManifestHeader.model_fields.keys() == {"shards"}
    for name in ManifestHeader.model_fields:
        assert getattr(header, name) == getattr(child, name)
    assert (header.identity, header.origin) == (child.identity, manifest.identity)
    assert header.shard_count == child.shard_count == len(manifest.shards)
    assert header.left_out_since(manifest.identity) == {manifest.shards[2].name}


def test_the_size_of_the_header_does_not_grow_with_the_shards(manifest: Manifest) -> None:
    many = manifest.model_copy(update={"shards": [*manifest.shards] * 1000})
    sizes = [len(pickle.dumps(each.header())) for each in (manifest, many)]
    assert sizes[1] - sizes[0] <= 2  # the number of shards itself may take 2 bytes
