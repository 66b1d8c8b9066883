"""A rank's part of a sum of gradients changes during the reduction, while a run trains with Ray:
the step is repeated or the ranks restart, and the curve is that of an undisturbed run.
"""

import pytest

from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import ReplayMismatch, Resumed, WrongReduction
from run_store.record.run_status import run_status_of
from transloom.observe.comparison.comparison import compare_runs

STEPS = 10
WRONG_IN = 6
SETTINGS = (
    "engine.numerics=exact",
    "batching.micro_batches_per_step=6",
    f"trainer.max_steps={STEPS}",
    "checkpoints.every_steps=4",
    "tracking.wandb=disabled",
)
VERIFIED = ("engine.verify_reductions=true", "cluster.placement=spread")


@pytest.fixture
def oracle(runs):
    """Return the same run of one rank without Ray, whose sums are also verified."""
    runs.train("undisturbed", *SETTINGS, VERIFIED[0], inline=True)
    lines = read_metrics(runs.folder / "undisturbed" / "metrics.jsonl")
    assert not any(isinstance(line, WrongReduction) for line in lines)
    return runs.folder / "undisturbed"


def check_curve(path, oracle):
    """Check that the run has the bits of the oracle; return its lines and its wrong reductions."""
    lines = read_metrics(path / "metrics.jsonl")
    assert not any(isinstance(line, ReplayMismatch) for line in lines)
    compared = compare_runs(path, oracle)
    assert compared.is_same, compared
    assert (compared.steps, compared.checkpoint_step) == (STEPS, STEPS)
    return lines, [line for line in lines if isinstance(line, WrongReduction)]


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 2])
def test_a_wrong_sum_is_repeated_and_a_second_one_restarts_the_ranks(runs, orders, oracle, times):
    orders.falsify(WRONG_IN, rank=1, times=times)
    try:
        result = runs.train("struck", *SETTINGS, *VERIFIED, "cluster.ranks=2")
    finally:
        orders.clear()
    assert result.outcome == "finished"
    path = runs.folder / "struck"
    lines, events = check_curve(path, oracle)
    assert [event.is_repeated for event in events] == [False, True][:times]
    assert {(event.step, event.checked_step) for event in events} == {(WRONG_IN - 1, WRONG_IN)}
    assert all(event.parameter_count > 0 for event in events)
    resumed = [line for line in lines if isinstance(line, Resumed)]
    assert [line.from_step for line in resumed] == [4][: times - 1]
    assert "was wrong in step 6" in run_status_of(path).corruption
    log = (path / "log.txt").read_text()
    assert ("was wrong in step 6 again" in log) == (times == 2)
