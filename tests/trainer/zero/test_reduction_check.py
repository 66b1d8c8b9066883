"""Wrong sums of gradients are found before they are applied, and right ones raise no alarm."""

import pytest
from support.ranks import reduction_jobs
from support.ranks.engine_jobs import Shape

SHAPES = [Shape(stage, numerics="exact", verify_reductions=True) for stage in range(4)]
SHAPES += [Shape(stage, "bf16", numerics="exact", verify_reductions=True) for stage in (1, 2, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_right_sums_raise_no_alarm(rank_pools, shape, ranks):
    if shape.precision == "bf16" and shape.zero_stage == 3 and ranks == 3:
        pytest.skip("refused: in bf16, 3 ranks cannot average exactly")
    for found in rank_pools(ranks).run(reduction_jobs.wrong_reductions, shape, 4, None, 0):
        assert found == [[]] * 4


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("fault", reduction_jobs.FAULTS)
def test_a_wrong_sum_is_found_on_all_ranks(rank_pools, shape, fault):
    first, *others = rank_pools(2).run(reduction_jobs.wrong_reductions, shape, 3, fault, 7)
    assert first[:2] == [[], []]
    assert first[2]
    assert all(other == first for other in others)
