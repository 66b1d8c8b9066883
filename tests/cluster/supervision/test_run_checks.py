"""A process that only checks a run, and does not own it, leaves the run unchanged."""

import shutil
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.recipes import tiny_recipe
from support.records.checkpoints import make_header, work_folder

from cluster.supervision.run_checks import (
    check_run,
    is_run_complete,
    open_run,
    start_cursor,
)
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import next_window
from data_pipeline.batching.window import open_mixture
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.preparation.quarantine import quarantine
from run_store.checkpoints.commit import commit, partial_folder
from run_store.checkpoints.folder_names import folder_name
from run_store.checkpoints.format import HEADER, EarlyStoppingState
from run_store.checkpoints.state_file import FileRecord
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder

STATE = "state-00000-of-00001.safetensors"


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def contents(folder):
    return {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def test_checking_a_run_writes_nothing(phrasebook, folder):
    """Another process may be starting the run with a different recipe."""
    theirs = tiny_recipe(phrasebook)
    open_run(theirs, folder, *check_run(theirs, folder))
    before = contents(folder)
    ours = tiny_recipe(phrasebook, max_steps=99)
    check_run(ours, folder)
    assert contents(folder) == before


def test_a_missing_initial_run_is_refused_before_the_run_is_owned(phrasebook, folder, tmp_path):
    recipe = tiny_recipe(phrasebook, init_from=str(tmp_path / "nowhere"))
    with pytest.raises(RunMismatchError):
        check_run(recipe, folder)


def test_a_run_that_has_trained_refuses_a_different_recipe(phrasebook, folder):
    recipe = tiny_recipe(phrasebook)
    store, manifest = check_run(recipe, folder)
    open_run(recipe, folder, store, manifest)
    other = recipe.model_copy(update={"seed": recipe.seed + 1})
    open_run(other, folder, store, manifest)  # no step was trained yet
    folder.metrics.write_text("{}\n")
    card = folder.card()
    with pytest.raises(RunMismatchError):
        check_run(recipe, folder)
    with pytest.raises(RunMismatchError):
        open_run(recipe, folder, store, manifest)
    assert folder.card() == card


def test_a_run_with_an_empty_record_has_not_begun(phrasebook, folder):
    """A start that ran out of memory before its first step leaves an empty record."""
    recipe = tiny_recipe(phrasebook)
    open_run(recipe, folder, *check_run(recipe, folder))
    folder.metrics.touch()
    assert not folder.has_begun()


@pytest.fixture
def at_step_20(phrasebook, folder):
    """Return a recipe of 20 steps, and functions that save a step and report if steps are left."""
    recipe = tiny_recipe(phrasebook, early_stopping={"metric": "loss", "patience": 3})
    store, manifest = check_run(recipe, folder)
    open_run(recipe, folder, store, manifest)
    work = work_folder(folder.checkpoints)

    def end(step=20, **fields):
        identity = {"dataset_identity": manifest.identity, "identity": folder.card().identity}
        header = make_header(step, **identity, **fields)
        state = f"state-00000-of-00001-{step}".encode()
        partial = partial_folder(work, step, "a")
        partial.mkdir()
        (partial / STATE).write_bytes(state)
        file = FileRecord(name=STATE, bytes=len(state), sha256=sha256(state).hexdigest())
        return commit(partial, folder.checkpoints / folder_name(step), header, [file]).path

    def left(recipe=recipe):
        heard = []
        listener = SimpleNamespace(notice=heard.append)
        return not is_run_complete(recipe, folder, work, manifest, listener), heard

    return recipe, end, left


def test_a_run_at_its_last_step_has_no_steps_left(at_step_20):
    recipe, end, left = at_step_20
    assert left() == (True, [])
    end(step=19)
    assert left() == (True, [])
    end()
    assert left() == (False, [])
    more = recipe.trainer.model_copy(update={"max_steps": 21})
    assert left(recipe.model_copy(update={"trainer": more})) == (True, [])


def test_a_run_whose_last_validation_is_due_is_not_complete(at_step_20):
    _, end, left = at_step_20
    end(validation_due=True)
    assert left() == (True, [])


def test_a_run_ended_by_early_stopping_has_no_steps_left(at_step_20):
    _, end, left = at_step_20
    end(step=5, early_stopping=EarlyStoppingState(metric="loss", validations_since_best=2))
    assert left() == (True, [])
    end(step=6, early_stopping=EarlyStoppingState(metric="loss", validations_since_best=3))
    assert left() == (False, [])


@pytest.mark.parametrize("damaged", [STATE, HEADER])
def test_a_run_is_complete_only_if_its_last_checkpoint_is_undamaged(at_step_20, damaged):
    _, end, left = at_step_20
    end(step=10)
    newest = end()
    (newest / damaged).write_bytes(b"damaged")
    is_left, notices = left()
    assert is_left
    assert "it was renamed to damaged-step-00000020, and the previous" in notices[0]


def test_ranks_skip_the_rest_of_a_window_that_lost_a_shard(phrasebook, tmp_path):
    copy = Path(shutil.copytree(phrasebook, tmp_path / "copy"))
    recipe = tiny_recipe(copy)
    _, parent = open_dataset(recipe.data)
    mixture = open_mixture(parent, recipe.data_settings)
    lost = parent.shards[mixture.slices(0, 0)[0].shard].name
    child = quarantine(copy, [lost], "lost")

    def start_from(identity, *cursor):
        saved = Cursor(*cursor).to_json()
        header = make_header(5, dataset_identity=identity, cursor=saved)
        return start_cursor(recipe, child, SimpleNamespace(header=header))

    begun = Cursor(0, 0, 2)
    assert start_from(parent.identity, 0, 0, 2) == next_window(begun, mixture.windows_per_epoch)
    assert start_from(child.identity, 0, 0, 2) == begun
    assert start_from(parent.identity, 0, 0, 0) == Cursor()
    assert start_cursor(recipe, child, None) == Cursor()
