"""`transloom train … --profile A:B` writes a trace for each rank and leaves the curve unchanged."""

import gzip
import json

import pytest
import typer

from cluster.errors import RecipeError
from run_store.folder import StepRange
from transloom.cli.options import step_range


def steps_in(path):
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return {event["name"] for event in events if event["name"].startswith("step ")}


def test_profiling_writes_a_trace_for_each_rank_and_leaves_the_curve_unchanged(runs, undisturbed):
    options = ["cluster.ranks=2", "trainer.max_steps=5", "checkpoints.every_steps=5"]
    result = runs.train("profiled", *options, profile=StepRange(3, 4))
    assert runs.curve("profiled") == undisturbed.curve("undisturbed")[:5]
    assert runs.digests("profiled") == undisturbed.digests("undisturbed")[:5]
    traces = sorted((runs.folder / "profiled" / "profile" / "steps-3-4").iterdir())
    assert [trace.name for trace in traces] == ["rank-0.json.gz", "rank-1.json.gz"]
    assert all(steps_in(trace) == {"step 3", "step 4"} for trace in traces)
    assert result.profile == traces[0].parent
    assert f"The profile is in {traces[0].parent}." in result.text()


def test_a_profile_of_steps_that_will_not_be_trained_is_refused(runs):
    short = ["trainer.max_steps=2"]
    with pytest.raises(RecipeError):
        runs.train("run", *short, inline=True, profile=StepRange(2, 3))
    with pytest.raises(RecipeError):
        runs.train("run", "trainer.max_steps=99", inline=True, profile=StepRange(1, 60))
    result = runs.train("run", *short, inline=True, profile=StepRange(2, 2))
    assert steps_in(result.profile / "rank-0.json.gz") == {"step 2"}
    more = ["trainer.max_steps=3"]
    with pytest.raises(RecipeError):
        runs.train("run", *more, inline=True, profile=StepRange(1, 3))
    # The same command again, as after a preemption, is accepted, because its profile exists.
    assert runs.train("run", *more, inline=True, profile=StepRange(2, 2)).step == 3


@pytest.mark.parametrize("text", ["", "a:b", "5:", ":5", "5:4", "0:3", "1:2:3", "-1:3", "²"])
def test_an_invalid_range_of_steps_is_refused(text):
    with pytest.raises(typer.BadParameter):
        step_range(text)


def test_a_range_of_steps_is_parsed():
    assert step_range("20:22") == (20, 22)
    assert step_range("7") == (7, 7)
