"""Overrides of items in lists, and the names of runs with overrides."""

import pytest
from support.recipes import tiny_values, write_yaml
from support.tasks import language_values

from cluster.errors import RecipeError
from cluster.recipe import load_recipe, run_name


@pytest.fixture
def recipe_file(tmp_path):
    """Return a recipe with two training corpora."""
    values = tiny_values(tmp_path / "dataset")
    first = values["data"]["train"][0]
    values["data"]["train"] = [first | {"name": "a"}, first | {"name": "b"}]
    return write_yaml(tmp_path / "tiny.yaml", values)


def test_every_item_of_a_list_can_be_overridden(recipe_file):
    recipe = load_recipe(recipe_file, ["data.train.0.name=first", "data.train.1.name=last"])
    assert recipe.data.corpus_names == ("first", "last")
    recipe = load_recipe(recipe_file, ["trainer.optimizer={betas: [0.8, 0.9]}"])
    assert recipe.trainer.optimizer.betas == (0.8, 0.9)
    both = ["trainer.optimizer={betas: [0.8, 0.9]}", "trainer.optimizer.betas.1=0.95"]
    assert load_recipe(recipe_file, both).trainer.optimizer.betas == (0.8, 0.95)


@pytest.mark.parametrize("place", ["2", "3", "-1", "b", "", "²"])
@pytest.mark.parametrize("override", ["data.train.{}.name=c", "data.train.{}=c"])
def test_an_index_beyond_the_list_is_refused_with_the_list_s_length(recipe_file, override, place):
    with pytest.raises(RecipeError, match=rf": {place} must be a number below 2, the length of"):
        load_recipe(recipe_file, [override.format(place)])


LONG = "trainer.init_from=runs/the-parent-of-this-run@{}"  # longer than 24 characters


def test_runs_with_long_values_of_equal_beginnings_have_different_names(recipe_file):
    names = [run_name(recipe_file, [LONG.format(step)]) for step in (100, 200, 100)]
    assert names[0] == names[2] != names[1]
    assert names[0] == "tiny,trainer.init_from=runs_the-par~7ec3b7b9"  # same hash in each process


def test_a_value_of_24_characters_is_kept_and_a_longer_value_is_cut(recipe_file):
    for length, name in [(24, "x" * 24), (25, "x" * 12 + "~")]:
        found = run_name(recipe_file, [f"trainer.init_from={'x' * length}"])
        assert found.startswith(f"tiny,trainer.init_from={name}")
        assert len(found) <= len("tiny,trainer.init_from=") + 24


def test_overrides_of_list_items_give_different_run_names(recipe_file):
    names = {run_name(recipe_file, [f"data.train.1.tag=<{tag}>"]) for tag in "ab"}
    assert len(names) == 2
    assert all(name.startswith("tiny,data.train=~") for name in names)
    assert len({len(name) for name in names} | {len("tiny,data.train=~01234567")}) == 1


def test_a_run_name_contains_no_slash_or_space(recipe_file):
    name = run_name(recipe_file, ["trainer.init_from=a/b c", "trainer.optimizer.betas=[0.9, 0.9]"])
    assert "/" not in name
    assert " " not in name


@pytest.mark.parametrize(
    "override",
    [
        "trainer.max_steps=many",
        "trainer.max_step=7",
        "cluster.ranks=0",
        "cluster.ranks=6",  # conflicts with a field of the file
        "model.heads=5",
        "task=juggling",
        "trainer.schedule.type=none",
        "trainer={}",  # lacks fields that the file has
    ],
)
def test_an_error_in_an_override_names_the_override_and_not_the_file(recipe_file, override):
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file, ["seed=5", override])
    assert str(caught.value).startswith(f"Override '{override}': ")
    assert str(recipe_file) not in str(caught.value)
    assert "seed=5" not in str(caught.value)


def test_an_error_in_the_file_names_the_file_and_not_the_overrides(recipe_file):
    recipe_file.write_text(recipe_file.read_text().replace("max_steps: 20", "max_steps: few"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file, ["seed=5"])
    assert str(caught.value).startswith(f"{recipe_file}: trainer.max_steps is 'few'")
    assert "seed" not in str(caught.value)
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file, ["seed=-5"])
    assert f"{recipe_file}: trainer.max_steps is 'few'" in str(caught.value)
    assert "Override 'seed=-5': seed is -5" in str(caught.value)


def test_two_overrides_that_contradict_each_other_are_both_named(recipe_file):
    given = ["engine.precision=bf16", "engine.zero_stage=0", "seed=5"]
    with pytest.raises(RecipeError, match="zero_stage 1") as caught:
        load_recipe(recipe_file, given)
    assert "Overrides 'engine.precision=bf16', 'engine.zero_stage=0': " in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0", r"cluster\.ranks is 0: give a whole number above 0 or {min: …, max: …}"),
        ("two", r"cluster\.ranks is 'two': give a whole number above 0 or {min: …, max: …}"),
        ("[2]", r"cluster\.ranks is 2: give a whole number"),
        ("{min: 3, max: 1}", "min is 3, but must not exceed max, which is 1"),
        ("{min: 0, max: 2}", r"cluster\.ranks\.min is 0: expected a number greater than 0"),
        ("{mni: 1, max: 2}", r"unknown key cluster\.ranks\.mni .*did you mean cluster\.ranks\.min"),
    ],
)
def test_invalid_ranks_are_refused_without_internal_terms(recipe_file, value, message):
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(recipe_file, [f"cluster.ranks={value}"])
    for internal in ("constrained", "function-after", "RankRange", "Input should"):
        assert internal not in str(caught.value)


def test_invalid_columns_are_refused_without_internal_terms(tmp_path):
    path = write_yaml(tmp_path / "labels.yaml", language_values(tmp_path / "dataset"))
    wrong = ["data.train=[{files: [a.csv], columns: {text: -2, label: label}}]"]
    with pytest.raises(RecipeError, match="a whole number of at least 0 or a text") as caught:
        load_recipe(path, wrong)
    assert "constrained" not in str(caught.value)
