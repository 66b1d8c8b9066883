"""The step whose curve jumped most, against medians worked out by hand."""

import pytest
from support.records.lines import train_line

from run_store.errors import RunError
from run_store.folder import StepRange
from transloom.observe.replay.loss_jumps import STEPS_BEFORE, largest_jump


def lines(losses, norms=None):
    norms = norms or [1.0] * len(losses)
    return [
        train_line(step, loss=loss, grad_norm=norm)
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), 1)
    ]


def test_usual_is_the_median_of_the_steps_before():
    losses = [1.0, 5.0, 2.0, 4.0, 3.0, 30.0, 3.0, 3.0, 3.0]
    jump = largest_jump(lines(losses), StepRange(1, len(losses)))
    assert (jump.step, jump.what, jump.value) == (6, "loss", 30.0)
    assert jump.usual == 3.0  # of 1 to 5; with step 6 in place of step 1 it would be 4


def test_a_step_is_no_part_of_what_is_usual_before_it():
    losses = [1.0, 2.0, 3.0, 4.0, 5.0, 60.0, 70.0, 80.0, 9.0]
    (first, *_) = [largest_jump(lines(losses), StepRange(6, 6))]
    assert first.usual == 3.0


def test_a_gradient_norm_may_jump_more_than_the_loss():
    losses = [2.0] * 12
    norms = [1.0] * 9 + [50.0] + [1.0] * 2
    jump = largest_jump(lines(losses, norms), StepRange(1, 12))
    assert (jump.step, jump.what, jump.usual) == (10, "gradient norm", 1.0)


def test_only_the_wanted_steps_count():
    losses = [2.0] * 6 + [90.0] + [2.0] * 5 + [9.0] + [2.0] * 3
    assert largest_jump(lines(losses), StepRange(10, 16)).step == 13


def test_without_enough_steps_before_them_the_remedy_is_named():
    with pytest.raises(RunError, match="--steps"):
        largest_jump(lines([1.0] * STEPS_BEFORE), StepRange(1, STEPS_BEFORE))
