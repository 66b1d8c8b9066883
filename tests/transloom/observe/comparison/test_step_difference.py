"""The first difference of two records of a step: a cause is reported before its effects."""

import math

import pytest
from support.records.lines import SPIKE_FIELDS, skipped_line, train_line

from transloom.observe.comparison.step_difference import loss_difference, step_difference

# Fields with values that differ from `train_line`'s, in the order of computation.
CHANGES = [
    ("data_digest", "other", "data"),
    ("target_tokens", 11, "data"),
    ("loss", 9.0, "loss"),
    ("nll", 9.0, "loss"),
    ("other_sums", {"z": 1.0}, "loss"),
    ("grad_norm", 9.0, "gradient norm"),
    ("learning_rate", 9.0, "learning rate"),
]
ONE = train_line(1)


def changed(*fields):
    return ONE.model_copy(update={name: value for name, value, _ in fields})


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_the_first_different_field_of_a_step_is_reported(number):
    field, value, what = CHANGES[number]
    found = step_difference(ONE, changed(*CHANGES[number:]))
    assert found == (what, getattr(ONE, field), value)
    assert step_difference(changed(*CHANGES[number:]), ONE) == (what, value, getattr(ONE, field))


def test_times_ranks_and_padding_are_not_compared():
    other = train_line(1, time=9.0, step_seconds=9.0, world_size=3, padding_fraction=0.9)
    assert step_difference(ONE, other) is None


def test_different_data_is_reported_before_a_skip():
    skipped = skipped_line(1)
    assert step_difference(ONE, skipped) == ("whether the step counts", "applied", "skipped")
    assert step_difference(skipped, ONE) == ("whether the step counts", "skipped", "applied")
    other = skipped_line(1, data_digest="other")
    assert step_difference(ONE, other) == ("data", ONE.data_digest, "other")


def test_skipped_steps_differ_in_cause_and_loss():
    spike = skipped_line(1, **SPIKE_FIELDS)
    assert step_difference(spike, spike) is None
    assert step_difference(spike, skipped_line(1, **SPIKE_FIELDS | {"loss": 9.75})) == (
        "loss",
        9.5,
        9.75,
    )
    bad = skipped_line(1, **dict.fromkeys(SPIKE_FIELDS) | {"cause": "not finite"})
    found = step_difference(spike.model_copy(update={"loss": None, "grad_norm": None}), bad)
    assert found == ("cause of the skip", "spike", "not finite")


def test_skipped_steps_differ_in_the_slots_that_are_not_finite():
    found = step_difference(skipped_line(1, slots=[1]), skipped_line(1, slots=[1, 4]))
    assert found == ("slots of a skipped step", [1], [1, 4])


def test_a_tolerance_is_relative_and_applies_to_its_field_only():
    near = ONE.model_copy(update={"loss": ONE.loss * 1.0009, "grad_norm": ONE.grad_norm * 1.0009})
    assert step_difference(ONE, near, {"loss": 1e-3, "grad_norm": 1e-3}) is None
    assert step_difference(ONE, near, {"loss": 1e-3}).what == "gradient norm"
    assert step_difference(ONE, near, {"loss": 1e-4, "grad_norm": 1e-3}).what == "loss"


def test_a_tolerance_excludes_the_field_other_sums():
    other = changed(("other_sums", {"z": 1.0}, ""))
    assert step_difference(ONE, other).what == "loss"
    assert step_difference(ONE, other, {"loss": 1e-3}) is None


def test_unknown_fields_are_not_compared():
    other = changed(("loss", 9.0, ""), ("grad_norm", 8.0, ""))
    assert step_difference(ONE, other, unknown=("loss",)).what == "gradient norm"
    assert step_difference(ONE, other, unknown=("loss", "grad_norm")) is None


def test_the_loss_difference_is_relative_to_the_first_loss():
    lines = {loss: train_line(1, loss=loss) for loss in (0.0, 2.0, 3.0, -4.0)}
    assert loss_difference(lines[2.0], lines[3.0]) == 0.5
    assert loss_difference(lines[3.0], lines[2.0]) == pytest.approx(1 / 3)
    assert loss_difference(lines[-4.0], lines[2.0]) == 1.5
    assert loss_difference(lines[0.0], lines[2.0]) == math.inf
    assert loss_difference(lines[0.0], lines[0.0]) == 0
    for pair in ((lines[2.0], skipped_line(1)), (skipped_line(1), lines[2.0])):
        assert loss_difference(*pair) == 0
