"""The phrasebook in place of the corpora that benchmarks train on."""

import pytest

from benchmarks.support.corpora import PHRASEBOOK, corpus_overrides
from cluster.recipe import find_recipe, load_recipe


@pytest.mark.parametrize("recipe", ["multi30k-ende", "multi30k-masked", "shakespeare-char"])
def test_the_phrasebook_replaces_each_download_of_a_recipe(recipe):
    corpora = ("train", "validation", "tests")
    overridden = load_recipe(find_recipe(recipe), corpus_overrides(recipe, PHRASEBOOK))
    for settings, inside in (
        (load_recipe(find_recipe(recipe)), "https://"),
        (overridden, "builtin:phrasebook/"),
    ):
        data = settings.data.model_dump_json(include=set(corpora))
        assert [mark for mark in ("https://", "builtin:phrasebook/") if mark in data] == [inside]


def test_a_folder_becomes_the_mirror_and_no_folder_keeps_the_recipe(tmp_path):
    recipe = load_recipe(
        find_recipe("multi30k-ende"), corpus_overrides("multi30k-ende", str(tmp_path))
    )
    assert str(recipe.data.mirror) == str(tmp_path)
    assert corpus_overrides("multi30k-ende", None) == []
