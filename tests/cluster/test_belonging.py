"""A run belongs to its owner: whoever is only asking leaves it as it is."""

import pytest
from support.recipes import tiny_recipe

from cluster.belonging import check_run, open_run
from trainer.errors import RunMismatchError
from trainer.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def contents(folder):
    return {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def test_checking_a_run_writes_nothing(phrasebook, folder):
    """Another process may be starting it, with another recipe."""
    theirs = tiny_recipe(phrasebook)
    open_run(theirs, folder, *check_run(theirs, folder))
    before = contents(folder)
    ours = tiny_recipe(phrasebook, max_steps=99)
    check_run(ours, folder)
    assert contents(folder) == before


def test_a_run_that_has_trained_is_refused_to_another_recipe(phrasebook, folder):
    recipe = tiny_recipe(phrasebook)
    store, manifest = check_run(recipe, folder)
    open_run(recipe, folder, store, manifest)
    other = recipe.model_copy(update={"seed": recipe.seed + 1})
    open_run(other, folder, store, manifest)  # nothing was trained yet
    folder.metrics.write_text("{}\n")
    card = folder.card()
    with pytest.raises(RunMismatchError, match="seed"):
        check_run(recipe, folder)
    with pytest.raises(RunMismatchError, match="seed"):
        open_run(recipe, folder, store, manifest)
    assert folder.card() == card


def test_an_empty_record_is_that_of_a_run_that_has_not_begun(phrasebook, folder):
    """As a start leaves it that ran out of memory before its first step."""
    recipe = tiny_recipe(phrasebook)
    open_run(recipe, folder, *check_run(recipe, folder))
    folder.metrics.touch()
    assert not folder.has_begun()
