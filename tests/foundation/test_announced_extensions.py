"""Extensions that installed packages announce are listed and suggested, but never imported."""

import json
import sys
from importlib import metadata

import pytest
from support.announced import install
from support.recipes import tiny_values
from support.tasks import language_model_values
from typer.testing import CliRunner

from cluster.errors import RecipeError
from cluster.recipe import Recipe, load_recipe
from foundation.announced_extensions import announced_components
from foundation.errors import ExtensionError
from foundation.strict_yaml import dump_yaml
from transloom.cli.app import app

pytestmark = pytest.mark.usefixtures("fresh_extensions")

MODULE = "ext_announced"
LOSS = """
import pathlib
from trainer.registries.losses import LOSSES
pathlib.Path(__file__).with_suffix(".imported").touch()
LOSSES.register("announced_and_named", LOSSES["cross_entropy"])
"""


@pytest.fixture
def site(tmp_path):
    """Return a directory with a package that announces a component of each kind."""
    kinds = ("task", "network", "loss", "optimizer", "schedule", "callback", "score", "format")
    components = [f"{kind}.announced" for kind in (*kinds, "tokenizer")]
    install(tmp_path / "site", MODULE, LOSS, *components)
    sys.path.append(str(tmp_path / "site"))  # `fresh_extensions` restores it
    yield tmp_path / "site"
    assert not (tmp_path / "site" / f"{MODULE}.imported").exists()


def changed(values, key, value):
    *sections, field = key.split(".")
    inner = values
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[field] = value
    return values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task", "announced"),
        ("model.network", "announced"),
        ("trainer.loss", "announced"),
        ("trainer.optimizer", {"type": "announced"}),
        ("trainer.schedule", {"type": "announced"}),
        ("trainer.validation_scores", ["announced"]),
        ("callbacks", [{"type": "announced"}]),
        ("tokenizer.type", "announced"),
        ("data.train", [{"files": ["a.txt"], "format": "announced"}]),
    ],
)
def test_the_error_for_an_unknown_name_suggests_the_announced_extension(site, tmp_path, key, value):
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_yaml(changed(tiny_values(tmp_path), key, value)))
    with pytest.raises(RecipeError, match=r"`extensions: \[ext_announced\]`.* ext_announced 1\.0"):
        load_recipe(path)


def test_a_component_of_another_kind_is_not_suggested(tmp_path):
    install(tmp_path / "site", MODULE, "", "optimizer.announced")
    sys.path.append(str(tmp_path / "site"))
    values = changed(tiny_values(tmp_path), "trainer.loss", "announced")
    with pytest.raises(ValueError, match="list the module that registers 'announced'") as error:
        Recipe.of(values)
    assert MODULE not in str(error.value)


def test_extensions_are_listed_if_another_package_is_damaged(site):
    install(site, "ext_damaged", "1 / 0", "no separator", "loss.a\nno value", "loss.b")
    install(site, "ext_other", "1 / 0", "loss.c", "score", "loss.")
    rows = json.loads(CliRunner().invoke(app, ["extensions", "--json"]).stdout)
    row, other = [row for row in rows if row["extension"].startswith("ext_")]
    assert row["registers"][:2] == ["callback announced", "format announced"]
    assert (row["extension"], row["package"], row["version"]) == (MODULE, MODULE, "1.0")
    assert (other["extension"], other["registers"]) == ("ext_other", ["loss c"])
    assert MODULE in CliRunner().invoke(app, ["extensions"]).stdout
    assert not [name for name in sys.modules if name.startswith("ext_")]


def test_an_announcement_with_an_invalid_module_name_is_ignored(site):
    (site / f"{MODULE}-1.0.dist-info" / "entry_points.txt").write_text(
        "[transloom.extensions]\nloss.a = os; rm\nloss.b = a b\nloss.c = a:b\nloss.d = a.b\n"
    )
    found = [one for one in announced_components() if one.package == MODULE]
    assert [(one.name, one.module) for one in found] == [("d", "a.b")]


def test_a_run_recorded_with_different_code_imports_no_extension(site, tmp_path):
    values = language_model_values(tmp_path) | {"extensions": [MODULE]}
    identity = {f"extensions.{MODULE}": "1.0 sha256:" + "0" * 64}
    with pytest.raises(ExtensionError, match=r"is 1\.0 sha256:\w+ on .* but 1\.0 sha256:0+ "):
        Recipe.of_untrusted(values, identity)
    assert MODULE not in sys.modules


def test_announcements_are_not_read_for_valid_recipes(tmp_path, monkeypatch):
    install(tmp_path / "site", MODULE, LOSS, "loss.announced_and_named")
    sys.path.append(str(tmp_path / "site"))
    monkeypatch.setattr(metadata, "distributions", lambda: pytest.fail("metadata was read"))
    values = changed(tiny_values(tmp_path), "trainer.loss", "announced_and_named")
    recipe = Recipe.of(values | {"extensions": [MODULE]})
    assert recipe.loaded_extensions.modules[0].version == "1.0"
    assert (tmp_path / "site" / f"{MODULE}.imported").exists()
