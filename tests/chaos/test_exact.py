"""Exact numerics on Multi30k: all shapes, and resized and killed runs, have the same bits."""

import os
import signal
from dataclasses import replace

import pytest
from support.faults.moments import MID_STEP
from support.faults.stage import opened_stage

from run_store.record.metrics_lines import Event
from transloom.observe.comparison.comparison import compare_runs

pytestmark = pytest.mark.chaos

STEPS = 300
EXACT = ("engine.numerics=exact", "trainer.validate_every_steps=100", "checkpoints.every_steps=50")
SHAPES = [
    (ranks, stage) for ranks in (1, 2, 3, 4) for stage in range(4) if (ranks, stage) != (1, 1)
]


def shaped(ranks, stage, steps=STEPS, *options):
    return (
        *EXACT,
        "cluster.cpus_per_rank=0.25",  # so that four ranks fit
        f"cluster.ranks={ranks}",
        f"engine.zero_stage={stage}",
        f"trainer.max_steps={steps}",
        *options,
    )


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with opened_stage(tmp_path_factory.mktemp("exact")) as opened:
        yield opened


def trained(trial):
    trial.start()
    assert trial.end() == 0, trial.story()
    return trial.run.path


@pytest.fixture(scope="module")
def one_rank(stage):
    return trained(stage.trial(*shaped(1, 1)))


@pytest.mark.parametrize(("ranks", "zero_stage"), SHAPES)
def test_runs_of_all_shapes_have_the_same_bits(stage, one_rank, ranks, zero_stage):
    comparison = compare_runs(one_rank, trained(stage.trial(*shaped(ranks, zero_stage))))
    assert comparison.is_same, comparison
    assert (comparison.steps, comparison.checkpoint_step) == (STEPS, STEPS)


@pytest.mark.parametrize(("ranks", "zero_stage"), [(1, 3), (2, 1), (2, 3), (3, 2), (4, 3)])
def test_bf16_runs_of_different_shapes_have_the_same_bits(stage, one_rank_bf16, ranks, zero_stage):
    options = shaped(ranks, zero_stage, STEPS, "engine.precision=bf16")
    comparison = compare_runs(one_rank_bf16, trained(stage.trial(*options)))
    assert comparison.is_same, comparison


@pytest.fixture(scope="module")
def one_rank_bf16(stage):
    return trained(stage.trial(*shaped(1, 1, STEPS, "engine.precision=bf16")))


def resized_and_killed(stage, shapes, *options):
    """Return the last trial of a run that continues in each shape.

    shapes: ranks, ZeRO stage, last step, and the step in which the last rank is killed, if any.
    """
    folder = None
    for ranks, zero_stage, last, kill_at in shapes:
        trial = stage.trial(*shaped(ranks, zero_stage, last, *options), folder=folder)
        folder = trial.run.path
        trial.start()
        if kill_at:
            reached = trial.reach(replace(MID_STEP, step=kill_at), rank=ranks - 1)
            os.kill(reached.process_id, signal.SIGKILL)
            reached.release()
        assert trial.end() == 0, trial.story()
    return trial


def test_a_run_that_is_resized_and_killed_has_the_bits_of_an_undisturbed_one(stage, one_rank):
    """2 → 1 → 3 → 2 ranks, each in another stage; a rank is killed in the first and third shape."""
    shapes = [(2, 1, 80, 60), (1, 0, 150, None), (3, 3, 230, 190), (2, 2, STEPS, None)]
    trial = resized_and_killed(stage, shapes)
    comparison = compare_runs(one_rank, trial.run.path)
    assert comparison.is_same, comparison
    assert comparison.steps == STEPS
    events = [event.event for event in trial.lines(Event)]
    assert "replay_mismatch" not in events
    assert events.count("resumed") == 5  # three after resizing, two after kills


def test_a_run_with_compiled_layers_that_is_resized_and_killed_has_the_same_bits(stage):
    """3 → 2 ranks in two stages, with a rank killed, are compared with one rank in stage 1."""
    compiled = "engine.compile=layers"
    expected = trained(stage.trial(*shaped(1, 1, 100, compiled)))
    trial = resized_and_killed(stage, [(3, 1, 60, 30), (2, 2, 100, None)], compiled)
    comparison = compare_runs(expected, trial.run.path)
    assert comparison.is_same, comparison
    assert comparison.steps == 100
