"""Optimizers registered by an extension: their options in a recipe, and what is refused."""

import pytest
import torch
from support.ranks import optimizer_jobs
from support.ranks.engine_jobs import Shape
from support.ranks.optimizer_jobs import FORGETFUL, RMSPROP, ROUNDING
from support.recipes import tiny_recipe, tiny_values, write_yaml

from cluster.errors import RecipeError
from cluster.recipe import load_recipe
from data_pipeline.dataset.manifest import open_dataset
from run_store.errors import RunMismatchError
from trainer.config import EngineConfig
from trainer.recipe import identity_differences, identity_of
from trainer.start.opening import check_folder
from trainer.zero.settings import build_optimizer


@pytest.fixture
def load(tmp_path):
    """Return a function that loads a recipe with an optimizer, and returns its configuration."""

    def loaded(engine=None, **optimizer):
        values = tiny_values(tmp_path / "dataset", optimizer=optimizer)
        path = write_yaml(tmp_path / "tiny.yaml", values | {"engine": engine or {}})
        return load_recipe(path).trainer.optimizer

    return loaded


def test_options_of_a_registered_optimizer_are_passed_and_have_defaults(load):
    config = load(type=RMSPROP, options={"alpha": 0.5})
    _, optimizer = build_optimizer([{"params": [torch.zeros(1)]}], config, EngineConfig())
    assert optimizer.param_groups[0]["alpha"] == 0.5
    assert load(type=RMSPROP).options == {"alpha": 0.9}
    assert load().type == "adamw"


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"type": "adam"}, r"trainer\.optimizer\.type is 'adam', but there is no .*adamw"),
        (
            {"type": RMSPROP, "options": {"alpha": 1}},
            r"trainer\.optimizer\.options\.alpha is 1: .*less than 1",
        ),
        (
            {"type": RMSPROP, "options": {"centered": True}},
            r"unknown key trainer\.optimizer\.options\.centered \(value true\)",
        ),
        (
            {"type": RMSPROP, "betas": [0.9, 0.99]},
            r"type 'test_rmsprop' does not read betas, which is \(0\.9, 0\.99\): remove it",
        ),
        (
            {"options": {"epsilon": 1e-6}},
            r"unknown key trainer\.optimizer\.options\.epsilon.*trainer\.optimizer\.epsilon",
        ),
        (
            {"type": RMSPROP, "engine": {"numerics": "exact"}},
            r"numerics is 'exact', .* 'test_rmsprop' does not support it: nobody has measured",
        ),
    ],
)
def test_an_invalid_optimizer_is_refused_when_the_recipe_is_loaded(load, optimizer, message):
    with pytest.raises(RecipeError, match=message):
        load(**optimizer)


def test_a_run_without_optimizer_settings_has_the_identity_of_adamw(tmp_path):
    """Runs that began before other optimizers existed keep their identity."""
    now = identity_of(tiny_recipe(tmp_path))
    new = ("trainer.optimizer.type", "trainer.optimizer.options", "trainer.schedule.options")
    before = {name: value for name, value in now.items() if name not in new}
    assert len(before) == len(now) - 3
    assert identity_differences(before, now) == []


def test_a_run_cannot_continue_with_another_optimizer(untrained_run, phrasebook):
    recipe = tiny_recipe(phrasebook)
    _, manifest = open_dataset(recipe.data)
    check_folder(untrained_run, recipe, manifest)
    other = tiny_recipe(phrasebook, optimizer={"type": RMSPROP})
    differences = r"options: \{\} there, \{'alpha': 0\.9\} here; .*'adamw' there, 'test_rmsprop'"
    with pytest.raises(RunMismatchError, match=differences):
        check_folder(untrained_run, other, manifest)


@pytest.mark.parametrize("stage", range(4))
def test_checkpoints_contain_the_moments_of_a_registered_optimizer(rank_pools, stage):
    job = optimizer_jobs.kinds_after_training
    losses, kinds, steps = rank_pools(1).run(job, Shape(stage), RMSPROP)[0]
    assert kinds == {"master", "square_avg"}
    assert steps == 3
    assert losses[-1] < losses[0]


def test_a_moment_that_the_optimizer_kind_does_not_name_is_an_error(rank_pools):
    message = (
        r"state has exp_avg, exp_avg_sq, max_exp_avg_sq, step, but its OptimizerKind names exp_a"
    )
    with pytest.raises(AssertionError, match=message):
        rank_pools(1).run(optimizer_jobs.kinds_after_training, Shape(1), FORGETFUL)


def test_exact_numerics_refuse_an_optimizer_that_is_not_exact(rank_pools):
    shape = Shape(1, numerics="exact")
    with pytest.raises(
        AssertionError, match="'test_rounding' builds Adam, which is not an ExactOptim"
    ):
        rank_pools(1).run(optimizer_jobs.kinds_after_training, shape, ROUNDING)
