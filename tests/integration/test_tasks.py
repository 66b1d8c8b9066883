"""Tasks other than translation have the same bits after kills and changes of ranks.

One task is an extension with its network; other tasks pack documents or pairs into rows, or compare
the pairs of a micro-batch with each other. tests/trainer/exact/test_language_model.py shows the
same for a language model on three ranks.
"""

import io
import math
from contextlib import nullcontext

import pytest
from rich.console import Console
from support.cluster.sabotage import kill
from support.cluster.strike import Strike
from support.faults.moments import MID_STEP
from support.recipes import write_yaml
from support.runs import Runs
from support.tasks import (
    EXTENSIONS,
    case_values,
    copy_values,
    embedding_values,
    language_model_values,
    masked_values,
    pair_masked_values,
)

from cluster.data.trace import trace
from cluster.recipe import load_recipe
from data_pipeline.preparation.prepare import prepare
from foundation.extensions import FOLDER_VARIABLE
from foundation.terminal import Terminal
from run_store.folder import StepRange
from transloom.cli.replay_run import ReplayRequest, replay
from transloom.observe.comparison.comparison import compare_runs

VALUES = {
    "labels of words": case_values,
    "copy": copy_values,
    "language model": language_model_values,
    "masked model": masked_values,
    "embedding": embedding_values,
    "masked model of pairs": pair_masked_values,
}
# Tasks for `make chaos`: encoders on packed rows, like the masked model of pairs.
LONG_FORM = ("labels of words", "masked model")
# An extension's task: the rank that replaces a killed rank must import the extension, too.
KILLED = LOOKED_AT_BY_TWO = "copy"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(task, marks=pytest.mark.chaos if task in LONG_FORM else ()) for task in VALUES
    ],
)
def task_runs(request, tmp_path_factory, ray_head):
    """Return the runs of a task, with an undisturbed run on one rank without Ray, and the task."""
    folder = tmp_path_factory.mktemp("task")
    recipe = write_yaml(folder / "recipe.yaml", VALUES[request.param](folder / "dataset"))
    prepare(load_recipe(recipe).data_settings, lambda progress: None)
    runs = Runs(recipe, folder, ray_head.address)
    runs.train("whole", "cluster.ranks=1", inline=True)
    return runs, request.param


@pytest.fixture(scope="module")
def moved(task_runs, orders):
    """Return the runs with `moved` of 24 steps, and the task.

    It trains on two ranks, one of which may be killed, then on one rank with another ZeRO stage.
    """
    task_runs, task = task_runs
    is_killed = task == KILLED
    strike = Strike(orders, MID_STEP, lambda reached: kill(reached.process_id))
    with strike if is_killed else nullcontext():
        task_runs.train("moved", "cluster.ranks=2", "trainer.max_steps=18")
    result = task_runs.train("moved", "cluster.ranks=1", "engine.zero_stage=3", inline=True)
    assert (result.outcome, result.step) == ("finished", 24)
    return task_runs, task


def test_a_run_with_a_killed_rank_and_changed_ranks_and_stage_has_the_bits_of_one_rank(moved):
    task_runs, task = moved
    events = [event["event"] for event in task_runs.lines("moved", "event")]
    assert events.count("resumed") == 1 + (task == KILLED)
    assert "resized" in events
    comparison = compare_runs(task_runs.folder / "whole", task_runs.folder / "moved")
    assert comparison.is_same, comparison
    assert (comparison.steps, comparison.checkpoint_step) == (24, 24)
    curve = task_runs.curve("whole")
    assert curve[-1] < 0.8 * curve[0]
    scores, others = (
        {line["step"]: line["scores"] for line in task_runs.lines(name, "validation")}
        for name in ("whole", "moved")
    )
    assert scores == {step: others[step] for step in (12, 24)}


def test_20_replayed_steps_on_another_number_of_ranks_have_the_same_bits(moved):
    """The replay, with inspection, begins before the change of ranks and ends after it."""
    moved, _ = moved
    wish = ReplayRequest(StepRange(3, 22), look=True)
    found = replay(moved.folder / "moved", wish, Terminal(file=io.StringIO()))
    verdict = found.verdict
    assert verdict.same, verdict
    assert verdict.to_the_last_bit
    assert (found.replayed_from, found.steps_trained, found.ranks) == (0, 22, 1)
    assert (verdict.data, verdict.losses, verdict.state) == ("same", "same", "same")
    assert verdict.state_steps  # the state of step 18, from before the change of ranks
    assert "numerics are exact" in verdict.promise
    lines = {line["step"]: line for line in moved.lines("moved")}
    for step in found.steps:
        line = lines[step.step]
        assert (step.loss, step.grad_norm) == (line["loss"], line["grad_norm"])
        total = math.fsum(example.loss * example.tokens for example in step.examples)
        assert total / line["target_tokens"] == pytest.approx(line["nll"], rel=1e-5)
        squares = math.fsum(norm**2 for norm in step.gradient_norms.values())
        assert math.sqrt(squares) == pytest.approx(line["grad_norm"], rel=1e-5)
        assert step.activations


def test_inspection_by_two_ranks_equals_that_by_one_rank(moved, monkeypatch):
    """The ranks have a different environment, and find the extension in the folder of the test."""
    moved, task = moved
    monkeypatch.setenv(FOLDER_VARIABLE, str(EXTENSIONS))
    if task != LOOKED_AT_BY_TWO:
        pytest.skip("the same code as for the extension, and in the long form")
    check_looks(moved)


@pytest.mark.chaos
def test_inspection_by_two_ranks_equals_that_by_one_rank_for_each_task(moved, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(EXTENSIONS))
    check_looks(moved[0])


@pytest.mark.chaos
def test_a_killed_rank_changes_no_bit_for_any_task(task_runs, orders):
    task_runs, _ = task_runs
    with Strike(orders, MID_STEP, lambda reached: kill(reached.process_id)):
        task_runs.train("killed", "cluster.ranks=2")
    comparison = compare_runs(task_runs.folder / "whole", task_runs.folder / "killed")
    assert comparison.is_same, comparison


def check_looks(moved):
    """Inspect a step with one rank and with two ranks, and compare the results."""
    looks = [
        replay(
            moved.folder / "moved",
            ReplayRequest(StepRange(20, 20), look=True, ranks=ranks, address=address),
            Terminal(file=io.StringIO()),
        )
        for ranks, address in ((1, None), (2, moved.address))
    ]
    assert all(look.verdict.same and look.verdict.to_the_last_bit for look in looks)
    (alone,), (together,) = (look.steps for look in looks)
    assert [e.example for e in together.examples] == [e.example for e in alone.examples]
    assert [e.texts for e in together.examples] == [e.texts for e in alone.examples]
    assert [e.loss for e in together.examples] == pytest.approx(
        [e.loss for e in alone.examples], rel=1e-5
    )
    assert together.gradient_norms == pytest.approx(alone.gradient_norms, rel=1e-9)
    for name, activations in together.activations.items():
        expected = alone.activations[name]
        assert activations.model_dump() == pytest.approx(expected.model_dump(), rel=1e-4, abs=1e-6)


def test_the_trace_of_a_task_equals_the_data_of_its_ranks(task_runs):
    traced = trace(task_runs[0].folder / "whole", 3, 5, None, Console(stderr=True))
    assert [step.step for step in traced] == [3, 4, 5]
    assert all(step.equal for step in traced)
