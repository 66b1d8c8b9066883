"""Places in lists that overrides name, and the names of runs that they make."""

import pytest
import yaml
from support.recipes import tiny_values

from cluster.errors import RecipeError
from cluster.recipe import load_recipe, run_name


@pytest.fixture
def recipe_file(tmp_path):
    """Of two training corpora."""
    values = tiny_values(tmp_path / "dataset")
    first = values["data"]["train"][0]
    values["data"]["train"] = [first | {"name": "a"}, first | {"name": "b"}]
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_every_place_of_a_list_can_be_overridden(recipe_file):
    recipe = load_recipe(recipe_file, ["data.train.0.name=first", "data.train.1.name=last"])
    assert recipe.data.corpus_names == ("first", "last")
    recipe = load_recipe(recipe_file, ["trainer.optimizer={betas: [0.8, 0.9]}"])
    assert recipe.trainer.optimizer.betas == (0.8, 0.9)
    both = ["trainer.optimizer={betas: [0.8, 0.9]}", "trainer.optimizer.betas.1=0.95"]
    assert load_recipe(recipe_file, both).trainer.optimizer.betas == (0.8, 0.95)


@pytest.mark.parametrize("place", ["2", "3", "-1", "b", "", "²"])
@pytest.mark.parametrize("override", ["data.train.{}.name=c", "data.train.{}=c"])
def test_a_place_beyond_the_list_is_named_with_its_length(recipe_file, override, place):
    with pytest.raises(RecipeError, match=rf": {place} must be a number below 2, the length of"):
        load_recipe(recipe_file, [override.format(place)])


LONG = "trainer.init_from=runs/the-parent-of-this-run@{}"  # of more than 24 characters


def test_runs_whose_long_values_begin_alike_have_names_of_their_own(recipe_file):
    names = [run_name(recipe_file, [LONG.format(step)]) for step in (100, 200, 100)]
    assert names[0] == names[2] != names[1]
    assert names[0] == "tiny,trainer.init_from=runs_the-par~7ec3b7b9"  # finds the run again


def test_a_value_of_24_characters_is_whole_and_a_longer_one_is_cut(recipe_file):
    for length, name in [(24, "x" * 24), (25, "x" * 12 + "~")]:
        found = run_name(recipe_file, [f"trainer.init_from={'x' * length}"])
        assert found.startswith(f"tiny,trainer.init_from={name}")
        assert len(found) <= len("tiny,trainer.init_from=") + 24


def test_runs_of_other_lists_have_names_of_their_own(recipe_file):
    names = {run_name(recipe_file, [f"data.train.1.tag=<{tag}>"]) for tag in "ab"}
    assert len(names) == 2
    assert all(name.startswith("tiny,data.train=~") for name in names)
    assert len({len(name) for name in names} | {len("tiny,data.train=~01234567")}) == 1


def test_a_name_is_one_folder(recipe_file):
    name = run_name(recipe_file, ["trainer.init_from=a/b c", "trainer.optimizer.betas=[0.9, 0.9]"])
    assert "/" not in name
    assert " " not in name
