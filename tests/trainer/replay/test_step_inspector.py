"""Parts of the step inspector: sums of gradients, ranges of activations, merged reports."""

import pytest
import torch
from support.records.lines import skipped_line, train_line
from torch import nn

from run_store.errors import RunError
from run_store.folder import StepRange
from trainer.process.placement import Placement
from trainer.replay.rank_reports import RankActivationReport, RankStepReport
from trainer.replay.step_inspector import GradientSums, activations_of
from transloom.observe.replay.inspected_steps import inspected_step
from transloom.observe.replay.loss_jumps import largest_jump


def test_gradients_of_a_repeated_step_replace_those_of_its_first_passes():
    sums = GradientSums(passes=2)
    for values in ([9.0, 9.0], [9.0, 9.0], [1.0, 0.0], [2.0, 4.0]):
        sums.add("w", torch.tensor(values))
    assert sums.squares(["w", "frozen"], Placement()) == {"w": 25.0}


def test_summing_gradients_does_not_change_the_gradient_in_place():
    sums, gradient = GradientSums(passes=2), torch.tensor([1.0])
    sums.add("w", gradient)
    sums.add("w", gradient)
    assert gradient.item() == 1.0
    assert sums.squares(["w"], Placement()) == {"w": 4.0}


def test_activations_are_recorded_from_each_call_of_each_module():
    network = nn.Sequential(nn.Identity(), nn.ReLU())
    with activations_of(network) as seen:
        network(torch.tensor([-2.0, 4.0]))
        network(torch.tensor([1.0, 1.0]))
    assert seen == {
        "0": RankActivationReport(minimum=-2, maximum=4, total=4, count=4),
        "1": RankActivationReport(minimum=0, maximum=4, total=6, count=4),
    }
    network(torch.tensor([100.0]))  # no hook remains
    assert seen["0"].maximum == 4


def test_activations_that_are_not_finite_are_reported():
    network = nn.Sequential(nn.Identity())
    with activations_of(network) as seen:
        network(torch.tensor([float("nan")]))
        network(torch.tensor([1.0]))
    assert seen == {"0": None}


def test_ranges_and_norms_of_all_ranks_are_merged():
    parts = [
        RankStepReport(
            examples=[],
            activations={
                "a": RankActivationReport(minimum=low, maximum=high, total=low + high, count=2),
                "b": None if low else RankActivationReport(minimum=0, maximum=0, total=0, count=1),
            },
            gradient_squares={"a.weight": 9.0, "a.bias": 16.0, "b.weight": None} if low else {},
        )
        for low, high in ((-3.0, 1.0), (0.0, 2.0))
    ]
    step = inspected_step(train_line(3), train_line(3), parts, places=None)
    span = step.activations["a"]
    assert (span.minimum, span.maximum, span.mean) == (-3, 2, 0)
    assert span.largest_magnitude == 3
    assert step.activations["b"].mean is None
    assert step.gradient_norms == {"a": 5.0, "b": None}


def test_a_skipped_step_has_no_loss():
    step = inspected_step(skipped_line(3), skipped_line(3), [], places=None)
    assert (step.loss, step.grad_norm, step.examples) == (None, None, [])


def record(loss=None, norm=None):
    """Return lines with a falling loss and a fluctuating norm, with given values at some steps."""
    return [
        train_line(
            step,
            loss=(loss or {}).get(step, 5 * 0.98**step * (1 + 0.01 * (step % 3))),
            grad_norm=(norm or {}).get(step, 1 + 0.1 * (7 * step % 11)),
        )
        for step in range(1, 61)
    ]


def test_a_small_jump_of_a_smooth_loss_outweighs_a_larger_one_of_a_fluctuating_norm():
    jump = largest_jump(record(loss={40: 5 * 0.98**40 * 1.3}, norm={20: 2.0}), StepRange(1, 60))
    assert (jump.step, jump.what) == (40, "loss")
    jump = largest_jump(record(norm={20: 20.0}), StepRange(1, 60))
    assert (jump.step, jump.what) == (20, "gradient norm")
    assert "step 20: gradient norm 20, after 1" in str(jump)


def test_the_largest_jump_is_searched_in_the_given_range_of_steps():
    lines = record(loss={30: 9.0, 50: 4.0})
    assert largest_jump(lines, StepRange(1, 60)).step == 30
    assert largest_jump(lines, StepRange(40, 60)).step == 50
    with pytest.raises(RunError):
        largest_jump(lines, StepRange(1, 5))


def test_the_steep_beginning_of_a_loss_is_not_a_jump():
    """A loss falls steeply at first, and has no earlier values to compare with."""
    assert largest_jump(record(), StepRange(1, 60)).spreads < 5
