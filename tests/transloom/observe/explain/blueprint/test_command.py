"""`transloom model show` for recipes without a prepared dataset, and for runs."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.invocation import invoke

from cluster.errors import RecipeError
from cluster.recipe import RECIPES
from transloom.inference.translator import Translator


def command(*arguments):
    return invoke("model", "show", *arguments, code=None).stdout


@pytest.mark.parametrize("recipe", [path.stem for path in RECIPES.glob("*.yaml")])
def test_model_show_draws_every_recipe_without_a_dataset(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "new" / "figure.svg"
    said = json.loads(command(recipe, "--svg", file, "--json"))
    assert said["vocabulary_from"] == "recipe"
    assert said["svg"] == str(file)
    assert sum(said["parameters_by_box"].values()) == said["blueprint"]["parameters"]
    assert ElementTree.fromstring(file.read_text(encoding="utf-8")).tag.endswith("svg")


@pytest.mark.parametrize("option", ["--each-layer", None])
def test_the_tables_parameters_sum_to_the_models_parameters(untrained_run, option):
    said = command(untrained_run.path, *([option] if option else []))
    rows = [line.split("\t") for line in said.splitlines() if "\t" in line][1:]
    total = int(rows[-1][-1].replace(",", ""))
    counts = [row[-1].rpartition("= ")[2].replace(",", "") for row in rows[:-1]]
    assert sum(int(count) for count in counts if count) == total
    model = Translator.load(untrained_run.path).model
    assert total == sum(parameter.numel() for parameter in model.parameters())
    assert bool(re.search("encoder layer 1\t", said)) == (option is not None)


def test_the_vocabulary_size_of_a_run_comes_from_its_dataset(untrained_run):
    said = json.loads(command(untrained_run.path, "--json"))
    assert said["vocabulary_from"] == "dataset"


def test_model_show_refuses_overrides_for_a_run(untrained_run):
    with pytest.raises(RecipeError, match="is a run, whose model is fixed"):
        command(untrained_run.path, "model.norm=pre")


def test_overrides_change_the_figure():
    pre = json.loads(command("phrasebook", "model.norm=pre", "--json"))
    keys = [box["key"] for box in pre["blueprint"]["columns"][0]["after"]]
    assert "encoder.last_norm" in keys


def test_the_image_in_the_documentation_equals_the_commands_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command("phrasebook", "--svg", "drawn.svg")
    images = Path(__file__).parents[5] / "docs" / "images"
    drawn = Path("drawn.svg").read_text("utf-8")
    assert (images / "phrasebook-model.svg").read_text("utf-8") == drawn
