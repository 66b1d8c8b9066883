"""The example loss z_loss: its values, its record during training, and its options."""

import math

import pytest
import torch
from support.recipes import write_yaml
from support.runs import Runs
from support.tasks import EXTENSIONS, language_model_values, opened_task
from torch.nn import functional as F

from cluster.errors import RecipeError
from cluster.recipe import Recipe, load_recipe
from trainer.recipe import identity_of

WEIGHT = 0.05


@pytest.fixture(scope="module")
def values(phrasebook_documents):
    values = language_model_values(phrasebook_documents)
    values |= {"extensions": ["z_loss"], "extension_folder": str(EXTENSIONS)}
    values["trainer"] = {k: v for k, v in values["trainer"].items() if k != "label_smoothing"} | {
        "loss": "z_loss",
        "loss_options": {"weight": WEIGHT},
        "max_steps": 3,
        "validate_every_steps": 3,
    }
    return values


@pytest.fixture
def recipe_file(values, tmp_path):
    return write_yaml(tmp_path / "recipe.yaml", values)


def test_z_loss_is_cross_entropy_plus_the_weighted_square_of_log_z(values):
    recipe = Recipe.of(values).training()
    loss = opened_task(recipe)[0].loss
    generator = torch.Generator().manual_seed(1)
    hidden, weight = (
        torch.randn(size, 8, generator=generator, requires_grad=True) for size in (20, 30)
    )
    target = torch.randint(30, (20,), generator=generator)
    logits = hidden @ weight.T
    nll = F.cross_entropy(logits, target, reduction="sum")
    z_squared = logits.exp().sum(dim=1).log().pow(2).sum()
    expected = torch.autograd.grad(nll + WEIGHT * z_squared, (hidden, weight))
    sums = loss(hidden, weight, target)
    assert sums._fields == ("loss", "nll", "z_squared")
    assert sums.nll.item() == pytest.approx(nll.item(), rel=1e-6)
    assert sums.z_squared.item() == pytest.approx(z_squared.item(), rel=1e-6)
    assert sums.loss.item() == pytest.approx((nll + WEIGHT * z_squared).item(), rel=1e-6)
    for found, wanted in zip(
        torch.autograd.grad(sums.loss, (hidden, weight)), expected, strict=True
    ):
        torch.testing.assert_close(found, wanted)


def test_z_loss_is_recorded_and_validation_uses_the_plain_loss(recipe_file, tmp_path):
    runs = Runs(recipe_file, tmp_path, address="")
    runs.train("run", inline=True)
    lines = runs.lines("run")
    assert len(lines) == 3
    for line in lines:
        assert list(line["other_sums"]) == ["z_squared"]
        total = line["nll"] + WEIGHT * line["other_sums"]["z_squared"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    (validation,) = runs.lines("run", "validation")
    assert validation["scores"]["loss"]["value"] < math.log(60) + 0.5  # without (log Z)²
    assert validation["scores"]["loss"]["value"] == pytest.approx(lines[-1]["nll"], rel=0.1)


def test_options_of_z_loss_are_checked_and_change_the_runs_identity(recipe_file):
    ours, other = (
        identity_of(load_recipe(recipe_file, overrides))
        for overrides in ([], ["trainer.loss_options.weight=0.01"])
    )
    assert {name for name in ours if ours[name] != other[name]} == {"trainer.loss_options"}
    for override, message in (
        ("trainer.loss_options.weight=0", r"weight.*greater than 0"),
        ("trainer.loss_options.height=1", r"unknown key trainer\.loss_options\.height"),
        ("trainer.label_smoothing=0.2", r"'z_loss' does not read label_smoothing, which is 0\.2"),
    ):
        with pytest.raises(RecipeError, match=rf"(?s){message}"):
            load_recipe(recipe_file, [override])
