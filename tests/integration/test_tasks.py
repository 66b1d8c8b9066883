"""Tasks other than translation go the same way: the same bits whatever happens to a run.

One lives outside of the packages and brings its own network; the other packs documents into rows.
That a language model has them on three ranks too, tests/trainer/exact/test_language_model.py shows.
"""

from contextlib import nullcontext

import pytest
import yaml
from rich.console import Console
from support.cluster.sabotage import kill
from support.cluster.strike import Strike
from support.faults.moments import MID_STEP
from support.runs import Runs
from support.tasks import copy_values, language_model_values

from cluster.data.trace import trace
from cluster.recipe import load_recipe
from data_pipeline.preparation.prepare import prepare
from trainer.tracking.comparison import compare_runs

VALUES = {"copy": copy_values, "language model": language_model_values}
KILLED = "language model"


@pytest.fixture(scope="module", params=list(VALUES))
def task_runs(request, tmp_path_factory, ray_head):
    """Runs of a task, one of which was never disturbed: one rank, without Ray."""
    folder = tmp_path_factory.mktemp("task")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(VALUES[request.param](folder / "dataset")))
    prepare(load_recipe(recipe).data_settings, lambda progress: None)
    runs = Runs(recipe, folder, ray_head.address)
    runs.train("whole", "cluster.ranks=1", inline=True)
    return runs, request.param == KILLED


def test_two_ranks_of_which_one_is_killed_and_another_shape_have_the_bits_of_one(task_runs, orders):
    task_runs, is_killed = task_runs
    strike = Strike(orders, MID_STEP, lambda reached: kill(reached.process_id))
    with strike if is_killed else nullcontext():
        task_runs.train("moved", "cluster.ranks=2", "trainer.max_steps=18")
    result = task_runs.train("moved", "cluster.ranks=1", "engine.zero_stage=3", inline=True)
    assert (result.outcome, result.step) == ("finished", 24)
    events = [event["event"] for event in task_runs.lines("moved", "event")]
    assert events.count("resumed") == 1 + is_killed
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


def test_its_trace_is_what_the_ranks_were_fed(task_runs):
    traced = trace(task_runs[0].folder / "whole", 3, 5, None, Console(stderr=True))
    assert [step.step for step in traced] == [3, 4, 5]
    assert all(step.equal for step in traced)
