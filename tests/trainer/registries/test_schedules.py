"""Schedules registered by an extension: their options in a recipe, and what is refused."""

import pytest
from pydantic import ValidationError
from support.recipes import tiny_values, write_yaml

from cluster.errors import RecipeError
from cluster.recipe import load_recipe
from foundation.section import REQUIRED, identity
from trainer.config import ScheduleConfig
from trainer.errors import ScheduleError
from trainer.registries.schedules import SCHEDULES, Schedule
from trainer.training.schedule import learning_rate


class Halving(Schedule):
    first: float = identity(REQUIRED, "The rate of the first step.", gt=0)
    steps: int = identity(10, "Steps in which the rate is halved.", gt=0)

    def rate(self, step, width):
        return self.first * 0.5 ** ((step - 1) / self.steps)


class Wrong(Schedule):
    gives: float = 0.0
    times: float = 1.0

    def rate(self, step, width):
        return self.gives * self.times


SCHEDULES.register("test_halving", Halving)
SCHEDULES.register("test_wrong", Wrong)


@pytest.fixture
def load(tmp_path):
    """Return a function that loads a recipe with a schedule, and returns its configuration."""

    def loaded(**schedule):
        values = tiny_values(tmp_path / "dataset", schedule=schedule)
        path = write_yaml(tmp_path / "tiny.yaml", values)
        return load_recipe(path).trainer.schedule

    return loaded


def test_the_rate_of_a_registered_schedule_follows_its_options(load):
    schedule = load(type="test_halving", options={"first": 0.5})
    assert schedule.options == {"first": 0.5, "steps": 10}
    assert [learning_rate(schedule, step, 128) for step in (1, 11, 21)] == [0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"type": "cosin"}, r"trainer\.schedule\.type is 'cosin', but there is no .* cosine"),
        ({"type": "test_halving"}, r"trainer\.schedule\.options\.first is missing"),
        (
            {"type": "test_halving", "options": {"first": -1}},
            r"trainer\.schedule\.options\.first is -1: .*greater than 0",
        ),
        (
            {"type": "test_halving", "options": {"first": float("nan")}},
            r"trainer\.schedule\.options\.first is nan: .*finite",
        ),
        (
            {"type": "test_halving", "options": {"first": 1, "step": 2}},
            r"unknown key trainer\.schedule\.options\.step \(value 2\)",
        ),
        (
            {"type": "test_halving", "options": {"first": 1}, "warmup_steps": 7},
            r"'test_halving' does not read warmup_steps, which is 7: remove it",
        ),
        (
            {"type": "test_halving", "options": {"first": 1}, "peak_learning_rate": 0.1},
            r"'test_halving' does not read peak_learning_rate, which is 0.1: remove it",
        ),
        (
            {"type": "constant", "peak_learning_rate": 0.1, "options": {"warmup_steps": 7}},
            r"unknown key trainer\.schedule\.options\.warmup_steps.*trainer\.schedule\.warmup_st",
        ),
        (
            {"type": "test_halving", "options": [1]},
            r"trainer\.schedule\.options is 1: expected a table",
        ),
    ],
)
def test_an_invalid_schedule_is_refused_when_the_recipe_is_loaded(load, schedule, message):
    with pytest.raises(RecipeError, match=message):
        load(**schedule)


@pytest.mark.parametrize(
    ("options", "rate"), [({"gives": -0.5}, -0.5), ({"gives": 1e200, "times": 1e200}, "inf")]
)
def test_a_negative_or_infinite_rate_is_refused(options, rate):
    schedule = ScheduleConfig(type="test_wrong", options=options)
    with pytest.raises(ScheduleError, match=f"Wrong returns the rate {rate} for step 3"):
        learning_rate(schedule, 3, 128)


def test_a_rate_of_zero_is_accepted():
    assert learning_rate(ScheduleConfig(type="test_wrong"), 3, 128) == 0


def test_options_of_an_unknown_schedule_type_add_no_further_error():
    with pytest.raises(ValidationError) as caught:
        ScheduleConfig(type="cosin", options={"first": 1})
    assert [problem["loc"] for problem in caught.value.errors()] == [("type",)]
