"""`transloom plan` on this machine, compared with what training then does."""

import json
from itertools import takewhile

import pytest
from support.recipes import tiny_recipe, tiny_values, write_yaml

from cluster.planning.plan import measure_epoch
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import iterate_steps
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from trainer.process import host_memory
from trainer.tasks.network import build_network


@pytest.fixture
def recipe_file(phrasebook, tmp_path):
    return write_yaml(tmp_path / "tiny.yaml", tiny_values(phrasebook))


@pytest.fixture
def plan(transloom, recipe_file, tmp_path):
    """Return a function that plans a run and returns the plan and the command's exit code."""

    def run(*arguments):
        result = transloom("plan", recipe_file, *arguments, "--run", tmp_path / "run", "--json")
        return json.loads(result.stdout), result.exit_code

    return run


def test_a_plan_with_measure_trains_some_steps_and_writes_nothing(plan, phrasebook, tmp_path):
    before = sorted(tmp_path.iterdir())
    found, code = plan("cluster.ranks=2", "--measure")
    assert (code, found["trainable"], found["problems"]) == (0, True, [])
    assert sorted(tmp_path.iterdir()) == before
    recipe = tiny_recipe(phrasebook)
    store, manifest = open_dataset(recipe.data)
    network = build_network(recipe.training(), load_tokenizers(store, manifest))
    assert found["parameters"] == sum(p.numel() for p in network.parameters())
    assert found["checkpoints"]["each"] == 12 * found["parameters"]
    assert found["rank_bytes"]["moments"] == 8 * found["parameters"] / 2
    assert found["speed"]["steps"] >= 3
    assert found["speed"]["units_per_second"] > 0
    assert found["measured"]["peak_bytes"] > 12 * found["parameters"]
    assert found["duration"]["ranks"] == 2
    assert found["duration"]["at_best"]


@pytest.mark.long
def test_a_plan_takes_the_speed_from_a_record_if_there_is_one(plan, inline_runs, phrasebook):
    other = inline_runs.train("other", inline=True).run
    found, _ = plan("--from", other, "--measure")
    assert found["measured"] is None
    assert found["speed"]["origin"] == f"the record of {other}"
    assert 0 < found["speed"]["goodput"] <= 1
    assert not found["duration"]["at_best"]


@pytest.mark.long
def test_ranks_that_need_more_memory_than_the_machine_has_are_a_problem(plan, monkeypatch):
    """Weights and moments would fit, but not together with the other memory of each process."""
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 10_000_000)
    monkeypatch.setattr(host_memory, "resident_bytes", lambda: 100_000_000)
    found, code = plan("cluster.ranks=5", "--measure")
    assert code == 1
    (problem,) = found["problems"]
    assert problem["about"] == "memory"
    assert "5 ranks need" in problem["problem"]
    assert "has 0.11 GB left" in problem["problem"]


def test_a_plan_reports_all_problems_at_once(plan, tmp_path, transloom, recipe_file):
    found, code = plan("data.dataset=/nowhere", "--from", tmp_path / "none")
    assert code == 1
    assert [problem["about"] for problem in found["problems"]] == ["dataset", "run"]
    result = transloom("plan", recipe_file, "data.dataset=/nowhere")
    assert result.exit_code == 1
    (problem,) = [line for line in result.stdout.splitlines() if line.startswith("problem: ")]
    assert "There is no prepared dataset at /nowhere" in problem
    assert "The run cannot be trained: 1 problem." in result.stdout


def test_the_plan_as_text_equals_the_plan_as_json(transloom, recipe_file, plan, tmp_path):
    found, _ = plan()
    result = transloom("plan", recipe_file, "--run", tmp_path / "run")
    assert f"parameters   {found['parameters']:,}" in result.stdout
    assert f"{found['epoch']['steps']:,.1f}".removesuffix(".0") + " steps" in result.stdout
    assert result.stdout.endswith("The run can be trained.\n")


def test_the_planned_steps_of_an_epoch_equal_those_of_training(phrasebook):
    recipe = tiny_recipe(phrasebook)
    store, manifest = open_dataset(recipe.data)
    whole = measure_epoch(recipe, store, manifest)
    reader = WindowReader(store, manifest, recipe.data_settings)
    slots = recipe.batching.micro_batches_per_step
    planned = iterate_steps(reader.layout, Cursor(), slots)
    steps = sum(1 for _ in takewhile(lambda step: step.next_cursor.epoch == 0, planned))
    assert whole.exact
    assert steps <= whole.steps < steps + 1
    assert whole.units == sum(shard.tokens["tgt"] for shard in manifest.shards)
    part = measure_epoch(recipe, store, manifest, bytes_read=1)
    assert not part.exact
    assert part.steps == pytest.approx(whole.steps, rel=0.1)
    assert part.units == pytest.approx(whole.units, rel=0.1)
