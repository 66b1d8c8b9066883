"""The manifest file: strict, hashed, and comparable with a recipe."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import DataConfig, TokenizerConfig
from data_pipeline.errors import DatasetError
from data_pipeline.manifest import Manifest, preparation_settings


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset, tmp_path / "copy"))


def edit(dataset: Path, change: Callable[[dict], object]) -> None:
    path = dataset / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_identity_is_the_hash_of_the_file(dataset: Path, manifest: Manifest) -> None:
    data = (dataset / "manifest.json").read_bytes()
    assert manifest.identity == hashlib.sha256(data).hexdigest()


def test_saving_what_was_loaded_gives_the_same_file(
    dataset: Path, manifest: Manifest, tmp_path: Path
) -> None:
    manifest.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_bytes() == (dataset / "manifest.json").read_bytes()


def test_it_describes_the_dataset(dataset: Path, manifest: Manifest) -> None:
    assert [(field.name, field.role, field.language) for field in manifest.fields] == [
        ("src", "source", "xx"),
        ("tgt", "target", "yy"),
    ]
    assert manifest.counts.read == 500 == manifest.pairs + sum(manifest.counts.dropped.values())
    assert [shard.pairs for shard in manifest.shards[:-1]] == [64] * (len(manifest.shards) - 1)
    assert {name: files["src"].lines for name, files in manifest.heldout.items()} == {
        "validation": 40,
        "small": 30,
    }
    files = {str(path.relative_to(dataset)) for path in dataset.rglob("*") if path.is_file()}
    assert files == {"manifest.json", *(name for name, _ in manifest.files())}
    manifest.verify(dataset)


def test_lengths_are_those_of_the_shards(dataset: Path, manifest: Manifest) -> None:
    lengths = manifest.load_lengths(dataset)
    assert lengths.dtype == np.int32
    for shard in manifest.shards:
        totals = lengths[shard.first_pair : shard.first_pair + shard.pairs].sum(axis=0)
        assert dict(zip(("src", "tgt"), totals.tolist(), strict=True)) == shard.tokens


def test_missing_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no prepared dataset at .*transloom prepare"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="transloom-dataset/2"), "has format 'transloom-dataset/2'"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m["shards"].pop(0), "starts at pair 64, expected 0"),
        (lambda m: m["counts"].update(kept=3), "counts.kept is 3"),
        (lambda m: m["shards"][0].update(name="../../etc/passwd"), "pattern"),
        (lambda m: m["lengths"].update(file="/etc/passwd"), "pattern"),
    ],
)
def test_damaged_manifests(copy: Path, change: Callable[[dict], object], message: str) -> None:
    edit(copy, change)
    with pytest.raises(DatasetError, match=message):
        Manifest.load(copy)


@pytest.mark.parametrize("content", ["", "[]", "{", '"transloom-dataset/1"'])
def test_manifests_that_are_no_json_object(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_text(content)
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        Manifest.load(copy)


def test_changed_and_missing_files_are_named(copy: Path, manifest: Manifest) -> None:
    (copy / "tokenizer.model").write_bytes(b"other")
    with pytest.raises(DatasetError, match=r"tokenizer\.model is damaged.* 5 bytes"):
        manifest.verify(copy)
    (copy / "lengths.npy").unlink()
    with pytest.raises(DatasetError, match=r"lengths\.npy .*cannot be read \(No such file"):
        manifest.load_lengths(copy)


def test_differences_name_settings_with_both_values(
    manifest: Manifest, data_config: Callable[..., DataConfig], tokenizer_config: TokenizerConfig
) -> None:
    elsewhere = data_config(Path("/elsewhere"), mirror="/mirror")
    assert manifest.differences(elsewhere, tokenizer_config) == []
    other = data_config(Path("x"), max_source_length=9, tests={})
    size = TokenizerConfig(vocabulary_size=121)
    assert [line.split(":")[0] for line in manifest.differences(other, size)] == [
        "data.max_source_length",
        "data.tests.small.source",
        "data.tests.small.target",
        "tokenizer.vocabulary_size",
    ]
    assert manifest.differences(data_config(Path("x")), size) == [
        "tokenizer.vocabulary_size: 120 in the dataset, 121 in the recipe"
    ]


def test_preparation_has_no_execution_settings(
    data_config: Callable[..., DataConfig], tokenizer_config: TokenizerConfig
) -> None:
    data = preparation_settings(data_config(Path("x"), mirror="y"), tokenizer_config)["data"]
    assert set(DataConfig.model_fields) - set(data) == {"dataset", "mirror"}
