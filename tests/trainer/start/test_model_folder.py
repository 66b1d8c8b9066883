"""Files of a Marian model's folder that a run pins by their hash."""

import hashlib
import json

import pytest
from support.marian import write_tokenizer
from support.recipes import tiny_recipe

from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.marian import pack
from model.errors import ModelError
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder
from trainer.start.model_folder import is_model_folder, origin_of
from trainer.start.warm_start import warm_start_of

WORDS = [f"{first}{second} word" for first in "abcdefgh" for second in "ijklmnop"]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "opus"
    write_tokenizer(path, (WORDS, WORDS), 40)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    return path


@pytest.fixture
def manifest(phrasebook, folder):
    """Return the manifest of a dataset with the folder's tokenizers."""
    _, manifest = open_dataset(tiny_recipe(phrasebook).data)
    sha256 = hashlib.sha256(pack(folder)).hexdigest()
    infos = {
        side: info.model_copy(update={"sha256": sha256})
        for side, info in manifest.tokenizers.items()
    }
    return manifest.model_copy(update={"tokenizers": infos})


def test_a_run_folder_is_not_a_model_folder(untrained_run, folder):
    assert is_model_folder(folder)
    assert not is_model_folder(untrained_run.path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_config_and_weights_are_pinned_by_their_hash(phrasebook, folder, manifest, tmp_path, name):
    recipe = tiny_recipe(phrasebook, init_from=str(folder)).training()
    run = RunFolder(tmp_path / "new")
    found = warm_start_of(recipe, run, manifest, None)
    assert found.path == folder
    assert found.parent == origin_of(folder, manifest)
    assert (found.parent.run_id, found.parent.step) == ("opus", 0)
    assert warm_start_of(recipe, run, manifest, found.parent) == found
    (folder / name).write_bytes(b"{} ")
    with pytest.raises(RunMismatchError, match=r"was started from step 0 of opus with sha256"):
        warm_start_of(recipe, run, manifest, found.parent)


def test_several_weight_files_are_pinned_with_their_index(folder, manifest):
    """With an index, its files are read, even if the folder has a file of the usual name."""
    alone = origin_of(folder, manifest)
    names = ["model-1.safetensors", "model-2.safetensors"]
    for name in names:
        (folder / name).write_bytes(b"weights")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1], "c": names[0]}}))
    found = {alone.sha256, origin_of(folder, manifest).sha256}
    assert len(found) == 2
    for name in (*names, index.name, "config.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b" ")
        found.add(origin_of(folder, manifest).sha256)
        (folder / name).write_bytes(content)
    assert len(found) == 6
    (folder / "model.safetensors").unlink()
    assert origin_of(folder, manifest).sha256 in found
    (folder / names[1]).unlink()
    with pytest.raises(ModelError, match=r"index\.json names model-2\.safetensors, but the fol"):
        origin_of(folder, manifest)


def test_tokenizers_that_differ_from_the_datasets_are_refused(folder, manifest):
    write_tokenizer(folder, (WORDS, WORDS[::2]), 40)
    with pytest.raises(RunMismatchError, match=r"tokenizer\.model=.*opus and tokenizer\.model_sha"):
        origin_of(folder, manifest)
