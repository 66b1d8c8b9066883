"""The step with the largest jump of loss or gradient norm, compared with medians by hand."""

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


def test_the_usual_value_is_the_median_of_the_preceding_steps():
    losses = [1.0, 5.0, 2.0, 4.0, 3.0, 30.0, 3.0, 3.0, 3.0]
    jump = largest_jump(lines(losses), StepRange(1, len(losses)))
    assert (jump.step, jump.what, jump.value) == (6, "loss", 30.0)
    assert jump.usual == 3.0  # the median of steps 1 to 5; that of steps 2 to 6 is 4


def test_a_step_is_not_included_in_its_usual_value():
    losses = [1.0, 2.0, 3.0, 4.0, 5.0, 60.0, 70.0, 80.0, 9.0]
    (first, *_) = [largest_jump(lines(losses), StepRange(6, 6))]
    assert first.usual == 3.0


def test_a_gradient_norm_that_jumps_more_than_the_loss_is_returned():
    losses = [2.0] * 12
    norms = [1.0] * 9 + [50.0] + [1.0] * 2
    jump = largest_jump(lines(losses, norms), StepRange(1, 12))
    assert (jump.step, jump.what, jump.usual) == (10, "gradient norm", 1.0)


def test_only_jumps_within_the_range_are_returned():
    losses = [2.0] * 6 + [90.0] + [2.0] * 5 + [9.0] + [2.0] * 3
    assert largest_jump(lines(losses), StepRange(10, 16)).step == 13


def test_too_few_preceding_steps_are_an_error_that_names_the_remedy():
    with pytest.raises(RunError, match="--steps"):
        largest_jump(lines([1.0] * STEPS_BEFORE), StepRange(1, STEPS_BEFORE))
