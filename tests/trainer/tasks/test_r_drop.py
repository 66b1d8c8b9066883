"""R-Drop in training: content of batches, recorded sums, and refusals."""

import io
import math

import pytest
import torch
from support.recipes import tiny_values, write_yaml
from support.runs import Runs
from support.tasks import language_model_values, opened_task

from cluster.errors import RecipeError
from cluster.recipe import load_recipe
from foundation.terminal import Terminal
from model.config.transformer import AttentionBackend
from run_store.folder import StepRange
from trainer.recipe import identity_of
from trainer.tasks.randomness import seed_torch
from transloom.cli.replay_run import ReplayRequest, replay

CPU = torch.device("cpu")
R_DROP = 5.0


def values_of(dataset, **trainer):
    return tiny_values(dataset, r_drop=R_DROP, max_steps=3, validate_every_steps=3, **trainer)


@pytest.fixture
def recipe_file(phrasebook, tmp_path):
    return write_yaml(tmp_path / "recipe.yaml", values_of(phrasebook))


@pytest.mark.parametrize("backend", AttentionBackend)
def test_rows_of_both_passes_belong_to_the_same_tokens(phrasebook, recipe_file, backend):
    recipe = load_recipe(recipe_file, [f"engine.attention={backend}"]).training()
    task, (_, manifest) = opened_task(recipe)
    (shape, *_) = task.data.widest(manifest, recipe.data_settings)
    micro_batch = task.data.synthetic(shape, manifest.special_ids)
    once, twice = task.collate(micro_batch, CPU), task.collate_for_training(micro_batch, CPU)
    assert twice.digest == once.digest  # the data is the same for both passes

    network = task.build_network()
    seed_torch(1, "dropout")
    hidden_md, _, target_m = network.train()(*twice.inputs, lambda *tensors: tensors)
    first, second = target_m.chunk(2)
    assert torch.equal(first, second)
    assert len(first) == task.targets(micro_batch).sum()
    one, other = hidden_md.chunk(2)
    assert not torch.equal(one, other)
    one, other = network.eval()(*twice.inputs, lambda *tensors: tensors)[0].chunk(2)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.long
def test_a_run_records_the_divergence_of_the_two_passes(recipe_file, tmp_path):
    runs = Runs(recipe_file, tmp_path, address="")
    runs.train("two", inline=True)
    runs.train("one", "trainer.r_drop=0", inline=True)
    assert runs.digests("two") == runs.digests("one")
    for two, one in zip(runs.lines("two"), runs.lines("one"), strict=True):
        assert list(two["other_sums"]) == ["divergence"]
        assert two["other_sums"]["divergence"] > 0
        assert "other_sums" not in one
        assert two["target_tokens"] == one["target_tokens"]
        # An untrained network has a large loss in both passes, and a small divergence between them.
        assert two["nll"] == pytest.approx(one["nll"], rel=0.05)
        assert two["loss"] > two["nll"]


@pytest.mark.long
def test_an_inspected_step_has_the_losses_of_both_passes(recipe_file, tmp_path):
    runs = Runs(recipe_file, tmp_path, address="")
    runs.train("run", inline=True)
    wish = ReplayRequest(StepRange(2, 3), look=True)
    found = replay(tmp_path / "run", wish, Terminal(file=io.StringIO()))
    assert found.verdict.same, found.verdict
    lines = {line["step"]: line for line in runs.lines("run")}
    assert len(found.steps) == 2
    for step in found.steps:
        line = lines[step.step]
        total = math.fsum(example.loss * example.tokens for example in step.examples)
        assert total / line["target_tokens"] == pytest.approx(line["nll"], rel=1e-5)


def test_r_drop_changes_the_identity_of_a_run_and_requires_dropout(recipe_file):
    ours, other = (
        identity_of(load_recipe(recipe_file, [f"trainer.r_drop={weight}"])) for weight in (5, 0)
    )
    assert {name for name in ours if ours[name] != other[name]} == {"trainer.r_drop"}
    for override, message in (
        ("trainer.r_drop=-1", r"trainer\.r_drop.*greater than or equal to 0"),
        ("model.dropout=0", r"trainer\.r_drop is 5\.0, but model\.dropout is 0, so both"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(recipe_file, [override])
    load_recipe(recipe_file, ["model.dropout=0", "model.attention_dropout=0.1"])


def test_a_task_that_cannot_duplicate_its_batches_refuses_r_drop(phrasebook_documents, tmp_path):
    values = language_model_values(phrasebook_documents)
    values["trainer"] |= {"r_drop": R_DROP}
    path = write_yaml(tmp_path / "recipe.yaml", values)
    with pytest.raises(RecipeError, match="the task causal_lm does not support R-Drop"):
        load_recipe(path, [])
