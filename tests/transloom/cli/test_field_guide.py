"""`transloom fields` describes the fields of recipes."""

import json

import pytest
from support.tasks import BUILT_IN

from cluster.errors import RecipeError
from cluster.recipe import Recipe, walk_fields
from foundation.section import change_class
from trainer.recipe import recipe_class


def fields_of_recipes(task):
    return {
        name: field
        for name, field in walk_fields(recipe_class(Recipe, task))
        if change_class(field)
    }


@pytest.mark.matrix
@pytest.mark.parametrize("task", BUILT_IN)
@pytest.mark.parametrize("section", ["", *Recipe.model_fields])
def test_fields_lists_every_section_of_every_task_as_json(transloom, section, task):
    if section == "decoding" and task.endswith("classification"):
        pytest.skip("nothing is decided when labels are told")
    result = transloom("fields", *[section] * bool(section), "--task", task, "--json")
    rows = json.loads(result.stdout)
    expected = [name for name in fields_of_recipes(task) if name.startswith(section)]
    assert [row["field"] for row in rows] == expected
    assert all(set(row) == {"field", "default", "change", "meaning"} for row in rows)


def test_fields_shows_defaults_as_recipes_write_them(transloom):
    rows = json.loads(transloom("fields", "--json").stdout)
    defaults = {row["field"]: row["default"] for row in rows}
    assert defaults["data.train.columns"] == {"source": 0, "target": 1, "score": None}
    assert defaults["trainer.optimizer.betas"] == [0.9, 0.98]
    assert defaults["trainer.max_steps"] == "required"
    assert defaults["trainer.early_stopping"] is None
    text = transloom("fields", "trainer").stdout
    assert "null" in text
    assert "None" not in text


def test_fields_refuses_an_unknown_section_and_lists_the_sections(transloom):
    with pytest.raises(RecipeError, match=r"with 'trainers': .* The sections are name, seed"):
        transloom("fields", "trainers")


def test_fields_refuses_an_unknown_task_and_lists_the_tasks(transloom):
    with pytest.raises(RecipeError, match=r"task is 'chess', but .* translation, causal_lm"):
        transloom("fields", "--task", "chess")
