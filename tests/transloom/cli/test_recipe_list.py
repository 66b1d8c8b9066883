"""`transloom recipes`, and the search in `transloom fields`."""

import json

import pytest
import yaml

from cluster.errors import RecipeError
from cluster.recipe import RECIPES, find_recipe, load_recipe


def test_recipes_lists_what_every_recipe_trains_and_needs(transloom):
    rows = json.loads(transloom("recipes", "--json").stdout)
    assert [row["recipe"] for row in rows] == sorted(path.stem for path in RECIPES.glob("*.yaml"))
    for row in rows:
        assert row["trains"].endswith("."), row
        assert len(row["trains"]) > 20, row
    needs = {row["recipe"]: row["needs"] for row in rows}
    assert needs["phrasebook"] == "2 CPU ranks; no download"
    assert needs["multi30k-ende"] == "2 CPU ranks; text from raw.githubusercontent.com"
    assert needs["vaswani-base"].startswith(
        "8 GPU ranks on a Ray cluster; text that you must download"
    )
    trains = {row["recipe"]: row["trains"] for row in rows}
    assert trains["vaswani-base"].endswith("WMT14, for GPUs on several nodes.")
    assert "phrasebook" in transloom("recipes").stdout


def test_recipes_shows_one_recipe_with_defaults_and_overrides(transloom):
    changed = ["recipes", "phrasebook", "trainer.max_steps=7"]
    values = json.loads(transloom(*changed, "--json").stdout)
    recipe = load_recipe(find_recipe("phrasebook"), changed[2:])
    assert values == recipe.model_dump(mode="json")
    assert values["cluster"]["grace_seconds"] == 120.0
    assert yaml.safe_load(transloom(*changed).stdout) == values


def test_fields_search_finds_fields_by_words_in_any_order(transloom):
    def found(*arguments):
        rows = json.loads(transloom("fields", *arguments, "--json").stdout)
        return [row["field"] for row in rows]

    assert "trainer.schedule.peak_learning_rate" in found("--search", "learning rate")
    assert found("--search", "RATE learning") == found("--search", "learning rate")
    assert found("trainer", "--search", "ema") == ["trainer.ema_decay"]
    assert "checkpoints.every_steps" in found("--search", "between checkpoints")


def test_fields_search_reports_words_that_match_no_field(transloom):
    with pytest.raises(RecipeError, match="No field of trainer has 'zebra' in its name"):
        transloom("fields", "trainer", "--search", "zebra")
