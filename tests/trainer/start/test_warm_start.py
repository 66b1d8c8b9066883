"""Select the checkpoint whose weights a new run starts from, and check that they fit."""

import shutil

import pytest
from support.recipes import tiny_recipe
from support.records.checkpoints import rewrite_header

from data_pipeline.dataset.manifest import open_dataset
from run_store.checkpoints.averaging import average
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.format import HEADER
from run_store.errors import CheckpointError, RunMismatchError
from run_store.folder import RunFolder
from trainer.start import warm_start
from trainer.start.opening import open_folder
from trainer.start.warm_start import warm_start_of


@pytest.fixture
def old_run(untrained_run, tmp_path):
    """Copy a run with checkpoints of steps 1 and 2, which a test may damage."""
    return RunFolder(shutil.copytree(untrained_run.path, tmp_path / "old"))


@pytest.fixture
def inherit(phrasebook, tmp_path):
    """Return a function that selects the weights that a new run starts from."""
    recipe = tiny_recipe(phrasebook)
    store, manifest = open_dataset(recipe.data)
    new = RunFolder(tmp_path / "new")

    def ask(reference, manifest=manifest, *, start=False):
        wanted = tiny_recipe(phrasebook, init_from=str(reference)).training()
        pinned = new.card().parent if new.card_path.exists() else None
        found = warm_start_of(wanted, new, manifest, pinned)
        if start:
            open_folder(new, wanted, store, manifest, found.parent)
        return found

    ask.manifest = manifest
    return ask


def test_the_newest_checkpoint_or_that_of_a_named_step_is_selected(old_run, inherit):
    newest, first = inherit(old_run.path), inherit(f"{old_run.path}@1")
    assert (newest.parent.step, first.parent.step) == (2, 1)
    assert newest.parent.run_id == old_run.card().id
    assert newest.path.name == "step-00000002"
    assert newest.path.is_absolute()


def test_an_average_is_refused_as_a_start(old_run, inherit):
    of = [Checkpoint(path) for path in list_checkpoints(old_run.checkpoints)]
    average(old_run.checkpoints, of)
    for checkpoint in of:
        shutil.rmtree(checkpoint.path)
    with pytest.raises(CheckpointError, match="average-of-1-2 is an average, from which"):
        inherit(old_run.path)


def test_a_run_without_init_from_has_no_warm_start(phrasebook, inherit, tmp_path):
    recipe = tiny_recipe(phrasebook).training()
    assert warm_start_of(recipe, RunFolder(tmp_path / "new"), inherit.manifest, None) is None


def test_a_checkpoint_is_pinned_before_the_first_step(old_run, inherit):
    """A run may wait for a slot in the cluster while the old run trains on."""
    pinned = inherit(f"{old_run.path}@1", start=True)
    assert inherit(old_run.path) == pinned


def test_a_pinned_checkpoint_is_used_although_a_newer_one_exists(old_run, inherit):
    """A newer checkpoint of the old run does not change where the new run started."""
    pinned = inherit(old_run.path, start=True)
    newer = shutil.copytree(pinned.path, pinned.path.with_name("step-00000003"))
    rewrite_header(newer, step=3)
    assert inherit(old_run.path) == pinned
    header = pinned.path / HEADER
    header.write_text(header.read_text() + " ")
    with pytest.raises(RunMismatchError, match=r"was started from step 2 of \w+ with sha256"):
        inherit(old_run.path)


def test_a_missing_run_and_a_missing_step_are_reported(old_run, inherit, tmp_path):
    with pytest.raises(RunMismatchError):
        inherit(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7.*with a checkpoint: 1, 2"):
        inherit(f"{old_run.path}@7")


def test_a_damaged_checkpoint_is_refused(old_run, inherit):
    (state,) = (old_run.checkpoints / "step-00000001").glob("*.safetensors")
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(CheckpointError):
        inherit(f"{old_run.path}@1")


def test_a_checkpoint_with_another_vocabulary_is_refused(old_run, inherit):
    tokenizers = {
        side: info.model_copy(update={"sha256": "0" * 64})
        for side, info in inherit.manifest.tokenizers.items()
    }
    other = inherit.manifest.model_copy(update={"tokenizers": tokenizers})
    with pytest.raises(RunMismatchError, match=r"tokenizer of .*old has sha256 \w+…"):
        inherit(old_run.path, other)


def test_a_run_of_another_task_must_share_its_single_tokenizer(old_run, inherit):
    (pieces,) = set(inherit.manifest.tokenizers.values())

    def of_documents(**changed):
        tokenizers = {"text": pieces.model_copy(update=changed)}
        return inherit.manifest.model_copy(update={"tokenizers": tokenizers})

    assert inherit(old_run.path, of_documents()).parent.step == 2
    with pytest.raises(RunMismatchError, match=r"the text tokenizer of .*old has sha256"):
        inherit(old_run.path, of_documents(sha256="0" * 64))


def test_a_run_of_another_task_cannot_use_one_of_two_tokenizers(old_run, inherit, monkeypatch):
    theirs = {
        side: info.model_copy(update={"sha256": side * 8})
        for side, info in inherit.manifest.tokenizers.items()
    }
    apart = inherit.manifest.model_copy(update={"tokenizers": theirs})
    monkeypatch.setattr(warm_start.Manifest, "load", lambda store: apart)
    documents = inherit.manifest.model_copy(update={"tokenizers": {"text": theirs["src"]}})
    with pytest.raises(RunMismatchError, match=r"has sha256 none, but"):
        inherit(old_run.path, documents)
