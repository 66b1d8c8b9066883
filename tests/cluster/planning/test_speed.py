"""Predict a run's duration from the speed of recorded or measured steps."""

import json

import pytest
from support.recipes import tiny_values

from cluster.planning.plan import Epoch, Plan
from cluster.planning.speed import Speed, duration, recorded_speed, speed_of
from cluster.recipe import Recipe
from run_store.errors import RunError
from run_store.folder import RunFolder
from run_store.record.metrics_lines import TrainLine
from trainer.memory.state_size import StateSize
from transloom.cli.plan import plan_text


def line(step, seconds, ranks=2, goodput=0.5):
    return TrainLine(
        step=step, epoch=0, window=0, offset=0, data_digest="", time=0.0, loss=1.0, nll=1.0,
        learning_rate=0.1, grad_norm=1.0, target_tokens=100, target_tokens_seen=100 * step,
        target_tokens_per_second=1.0, padding_fraction=0.0, step_seconds=seconds,
        data_stall_seconds=0.0, checkpoint_stall_seconds=0.0, world_size=ranks, goodput=goodput,
    )  # fmt: skip


def recipe(tmp_path, ranks, cpus=1):
    values = tiny_values(tmp_path)  # 5 micro-batches per step
    values["cluster"] |= {"ranks": ranks, "cpus_per_rank": cpus}
    return Recipe.of(values)


def test_speed_is_that_of_the_last_steps_with_the_same_number_of_ranks():
    steps = [line(9, 2.0), line(8, 4.0), line(7, 2.0), line(6, 99.0, ranks=1)]
    speed = speed_of(steps, "here")
    assert speed == Speed(2, 2.0, 50.0, 3, 0.5, "here")
    assert speed_of([], "here") is None


@pytest.mark.parametrize(
    "spoilt",
    [
        {"world_size": 0},
        {"step_seconds": 0.0},
        {"step_seconds": -1.0},
        {"step_seconds": 5e-324},
        {"step_seconds": 1e308},
        {"goodput": -0.5},
        {"goodput": 5e-324},
    ],
)
def test_steps_with_impossible_values_are_left_out_of_the_speed(spoilt):
    made_up = line(3, 7.0).model_copy(update=spoilt)
    assert speed_of([made_up], "here") is None
    assert speed_of([made_up, line(2, 2.0)], "here").step_seconds == 2.0


@pytest.mark.parametrize("field", ["target_tokens", "world_size", "model_flops"])
def test_a_record_with_a_number_that_is_too_large_is_refused_with_its_field(tmp_path, field):
    file = tmp_path / "metrics.jsonl"
    values = line(1, 1.0).model_dump() | {field: 10**400}
    file.write_text(json.dumps(values) + "\n")
    with pytest.raises(RunError, match=f"{field}: .* less than or equal to"):
        recorded_speed(file, "here")


def test_the_recorded_speed_is_that_of_the_last_steps(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert recorded_speed(file, "none") is None
    lines = [line(step, 1.0 if step > 50 else 9.0) for step in range(1, 251)]
    file.write_text("".join(f"{one.to_json()}\n" for one in lines))
    assert recorded_speed(file, "it").step_seconds == 1.0


@pytest.mark.parametrize(
    ("ranks", "passes"),
    [(1, 5), (2, 3), (5, 1)],  # passes of the rank with the most slots
)
def test_more_ranks_take_fewer_passes_per_step(tmp_path, ranks, passes):
    speed = Speed(1, 10.0, 10.0, 3, None, "here")
    taken = duration(recipe(tmp_path, ranks), speed, 360, processors=None)
    assert taken.hours == pytest.approx(passes / 5)
    assert taken.at_best == (ranks > 1)


def test_ranks_that_share_processors_are_not_faster(tmp_path):
    speed = Speed(1, 10.0, 10.0, 3, None, "here")
    taken = duration(recipe(tmp_path, 5), speed, 360, processors=1)
    assert taken.hours == pytest.approx(1.0)


def test_a_duration_from_a_record_includes_time_between_steps(tmp_path):
    speed = Speed(2, 10.0, 10.0, 3, 0.5, "a record")
    taken = duration(recipe(tmp_path, 2), speed, 360, processors=2)
    assert taken.hours == pytest.approx(2.0)
    assert not taken.at_best


@pytest.mark.parametrize(
    ("steps", "words"),
    [(1.0, "1 step,"), (128.0, "128 steps,"), (1284.25, "1,284.2 steps,"), (0.04, "0 steps,")],
)
def test_the_steps_of_an_epoch_are_shown_with_a_fraction_if_not_whole(tmp_path, steps, words):
    epoch = Epoch(steps, 1000, exact=True)
    text = plan_text(Plan(recipe(tmp_path, 1), RunFolder(tmp_path), 10, [], epoch=epoch))
    assert f"an epoch     {words} 1,000 target tokens" in text


@pytest.mark.parametrize(
    ("every_steps", "step_seconds", "words"),
    [
        (0, 1.0, "none; checkpoints.memory_every_steps=17 or more costs at most 2%"),
        (0, 100.0, "none; checkpoints.memory_every_steps=1 or more costs at most 2%"),
        (5, 1.0, "every 5 steps, 2.00 GB of /dev/shm for each rank, twice as much on several"),
        (5, 1.0, "an interval of 17 steps or more costs at most 2%"),
    ],
)
def test_a_plan_shows_which_interval_of_memory_checkpoints_costs_little(
    tmp_path, every_steps, step_seconds, words
):
    """A rank's share of 1 GB is copied in a third of a second, so every 17 s costs 2%."""
    wanted = recipe(tmp_path, 2)
    checkpoints = wanted.checkpoints.model_copy(update={"memory_every_steps": every_steps})
    wanted = wanted.model_copy(update={"checkpoints": checkpoints})
    state = StateSize(0, 0, 0, 0, 0, 0, checkpoint_copy=1_000_000_000)
    speed = Speed(2, step_seconds, 10.0, 3, None, "here")
    text = plan_text(
        Plan(wanted, RunFolder(tmp_path), 10, [], state=state, parameters=1, speed=speed)
    )
    assert words in " ".join(text.split())


@pytest.mark.parametrize(
    ("ranks", "measured", "processors", "words"),
    [
        (
            5,
            1,
            None,
            "20 s for 10 steps without validations and checkpoints, if 5 ranks are 5 times",
        ),
        (2, 1, None, "if 2 ranks are 1.67 times as fast as 1"),  # 3 passes instead of 5
        (5, 1, 1, "if 5 ranks are as fast as 1"),  # all ranks share a CPU
        (1, 5, None, "if 1 rank is 0.2 times as fast as 5"),
        (2, 2, None, "1 min 40 s for 10 steps without validations and checkpoints"),
    ],
)
def test_the_plan_states_the_assumed_speed_of_ranks(tmp_path, ranks, measured, processors, words):
    wanted = recipe(tmp_path, ranks)
    speed = Speed(measured, 10.0, 10.0, 3, None, "here")
    taken = duration(wanted, speed, 10, processors)
    text = plan_text(Plan(wanted, RunFolder(tmp_path), 10, [], speed=speed, duration=taken))
    assert words in text
    assert ("if" in text) == (ranks != measured)
    assert "promise" not in text
