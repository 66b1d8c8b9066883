"""Wrong sums of gradients are detected before they are applied; right ones raise no alarm.

Engines, ranks and reductions are real, except for the planted faults.
"""

from dataclasses import replace

import pytest
import torch
from support.ranks import engine_jobs, reduction_jobs
from support.ranks.engine_jobs import Shape
from support.ranks.reduction_jobs import FAULTS, Planted


def shape(stage, precision="fp32"):
    return Shape(stage, precision, numerics="exact", verify_reductions=True)


SHAPES = [shape(stage) for stage in range(4)] + [shape(stage, "bf16") for stage in (1, 2, 3)]
# 3 ranks do not have the last shape: stage 3 averages, which 3 ranks cannot do exactly in bf16.
CASES = [(2, each) for each in SHAPES] + [(3, each) for each in SHAPES[:-1]]


def name(value):
    return f"stage {value.zero_stage} {value.precision}" if isinstance(value, Shape) else None


@pytest.mark.parametrize(("ranks", "shape"), [*((1, each) for each in SHAPES), *CASES], ids=name)
def test_training_with_verified_reductions_has_the_same_bits(rank_pools, ranks, shape):
    """Gradients are clipped, so their norm matters."""
    pool = rank_pools(ranks)
    trainings = [
        pool.run(engine_jobs.train, replace(shape, verify_reductions=verified), 4, 0.5)
        for verified in (True, False)
    ]
    for (losses, weights, norms), other in zip(*trainings, strict=True):
        assert (losses, norms) == (other[0], other[2])
        assert min(norms) > 0.5
        assert all(torch.equal(weights[name], other[1][name]) for name in weights)


@pytest.mark.parametrize(
    ("ranks", "shape", "rounds"),
    [
        *((*case, 1) for case in (CASES[0], CASES[4], CASES[9], CASES[10])),
        *(pytest.param(*case, 2, marks=pytest.mark.long) for case in CASES),
        *(pytest.param(*case, 16, marks=pytest.mark.chaos) for case in CASES),
    ],
    ids=name,
)
def test_exactly_the_faults_that_change_a_sum_are_detected(rank_pools, ranks, shape, rounds):
    """Chaos plants 832 faults, 64 in each case."""
    seeds = range(rounds * len(FAULTS))
    planted = [Planted([*FAULTS][seed % 4], (seed // 4) % ranks, seed) for seed in seeds]
    by_rank = rank_pools(ranks).run(reduction_jobs.try_faults, shape, planted, cpu_seconds=600)
    changes = set()
    for fault, *results in zip(planted, *by_rank, strict=True):
        is_changed = any(changed for changed, _ in results)
        (wrong,) = {tuple(wrong) for _, wrong in results}  # equal on all ranks
        assert bool(wrong) == is_changed, fault
        changes |= {fault.fault} if is_changed else set()
    assert len(changes) >= min(rounds, len(FAULTS))


def test_errors_of_two_ranks_that_cancel_in_the_sum_are_detected(rank_pools):
    one, other = rank_pools(2).run(reduction_jobs.wrong_by_opposite_errors, shape(0))
    assert one == other != []


# Marks of cases that take ten minutes each on two idle cores.
CHAOS = (pytest.mark.chaos, pytest.mark.timeout(3600))
ODD_STEPS = [(2, shape(0), 5), (3, shape(1, "bf16"), 3), (2, shape(2), 4), (3, shape(3), 4)]


@pytest.mark.parametrize(
    ("ranks", "shape", "slots", "steps"),
    [
        *((*case, 40) for case in ODD_STEPS[:2]),
        *(pytest.param(*case, 100, marks=pytest.mark.long) for case in ODD_STEPS),
        *(pytest.param(*case, 2500, marks=CHAOS) for case in ODD_STEPS),
    ],
    ids=name,
)
def test_healthy_steps_of_all_kinds_raise_no_alarm(rank_pools, ranks, shape, slots, steps):
    """Chaos trains 10,000 steps with a first step, dummies, spikes, wider grids and NaN."""
    results = rank_pools(ranks).run(
        reduction_jobs.count_alarms, shape, slots, steps, cpu_seconds=3600
    )
    for lines in results:
        assert lines["wrong_reduction"] == 0
        assert lines["train"] + lines["skipped"] == steps
        assert lines["train"] > steps / 2
        assert lines["skipped"] >= 2 * len(range(13, steps, 20))  # spikes and non-finite steps
        assert lines["repeated"] >= len(range(13, steps, 20))


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, shape(1)), (3, shape(3))), ((3, shape(2, "bf16")), (2, shape(1, "bf16")))],
    ids=str,
)
def test_right_sums_raise_no_alarm_after_a_restart(rank_pools, tmp_path, before, after):
    results = rank_pools(before[0]).run(engine_jobs.train_and_save, before[1], 3, tmp_path)
    folder = engine_jobs.committed(tmp_path, [saved for _, saved in results])
    for losses, _, is_same in rank_pools(after[0]).run(engine_jobs.resume, after[1], folder, 6):
        assert len(losses) == 3
        assert is_same
