"""Tasks other than translation go the same way: the same bits whatever happens to a run.

One lives outside of the packages and brings its own network; others pack documents, or pairs, into
rows, or compare the pairs of a micro-batch with each other.
That a language model has them on three ranks too, tests/trainer/exact/test_language_model.py shows.
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
# They train encoders, as the masked model of pairs does, from rows packed in the same way.
LONG_FORM = ("labels of words", "masked model")
# An extension's own network, which a rank that replaces a killed one has to find, too.
KILLED = LOOKED_AT_BY_TWO = "copy"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(task, marks=pytest.mark.chaos if task in LONG_FORM else ()) for task in VALUES
    ],
)
def task_runs(request, tmp_path_factory, ray_head):
    """Runs of a task, one of which was never disturbed: one rank, without Ray."""
    folder = tmp_path_factory.mktemp("task")
    recipe = write_yaml(folder / "recipe.yaml", VALUES[request.param](folder / "dataset"))
    prepare(load_recipe(recipe).data_settings, lambda progress: None)
    runs = Runs(recipe, folder, ray_head.address)
    runs.train("whole", "cluster.ranks=1", inline=True)
    return runs, request.param


@pytest.fixture(scope="module")
def moved(task_runs, orders):
    """A run of 24 steps of that name: on two ranks, of which one may be killed, then otherwise.

    And which task it is of.
    """
    task_runs, task = task_runs
    is_killed = task == KILLED
    strike = Strike(orders, MID_STEP, lambda reached: kill(reached.process_id))
    with strike if is_killed else nullcontext():
        task_runs.train("moved", "cluster.ranks=2", "trainer.max_steps=18")
    result = task_runs.train("moved", "cluster.ranks=1", "engine.zero_stage=3", inline=True)
    assert (result.outcome, result.step) == ("finished", 24)
    return task_runs, task


def test_two_ranks_of_which_one_is_killed_and_another_shape_have_the_bits_of_one(moved):
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


def test_20_of_its_steps_once_more_on_another_number_of_ranks_are_the_same_bits(moved):
    """From a checkpoint before the resize to one after it, as a reviewer would, who looks, too."""
    moved, _ = moved
    wish = ReplayRequest(StepRange(3, 22), look=True)
    found = replay(moved.folder / "moved", wish, Terminal(file=io.StringIO()))
    verdict = found.verdict
    assert verdict.same, verdict
    assert verdict.to_the_last_bit
    assert (found.replayed_from, found.steps_trained, found.ranks) == (0, 22, 1)
    assert (verdict.data, verdict.losses, verdict.state) == ("same", "same", "same")
    assert verdict.state_steps  # that of step 18, which was kept, was before the resize
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


def test_a_look_by_two_ranks_is_that_of_one(moved, monkeypatch):
    """The ranks, which have another environment, find the extension in the folder of ours."""
    moved, task = moved
    monkeypatch.setenv(FOLDER_VARIABLE, str(EXTENSIONS))
    if task != LOOKED_AT_BY_TWO:
        pytest.skip("the same code as for the extension, and in the long form")
    check_looks(moved)


@pytest.mark.chaos
def test_a_look_by_two_ranks_is_that_of_one_whatever_the_task(moved, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(EXTENSIONS))
    check_looks(moved[0])


@pytest.mark.chaos
def test_a_rank_that_is_killed_changes_no_bit_whatever_the_task(task_runs, orders):
    task_runs, _ = task_runs
    with Strike(orders, MID_STEP, lambda reached: kill(reached.process_id)):
        task_runs.train("killed", "cluster.ranks=2")
    comparison = compare_runs(task_runs.folder / "whole", task_runs.folder / "killed")
    assert comparison.is_same, comparison


def check_looks(moved):
    """Inspect a step with one rank and with two, and compare what they saw."""
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


def test_its_trace_is_what_the_ranks_were_fed(task_runs):
    traced = trace(task_runs[0].folder / "whole", 3, 5, None, Console(stderr=True))
    assert [step.step for step in traced] == [3, 4, 5]
    assert all(step.equal for step in traced)
