"""Gradients reduced in buckets of any size have the same bits as reduced one by one."""

import pytest
import torch
from support.ranks import engine_jobs
from support.ranks.engine_jobs import Shape

SHAPES = [
    *(Shape(stage, "bf16", numerics="exact", verify_reductions=stage == 1) for stage in (1, 2, 3)),
    *(Shape(stage, "fp32", numerics="exact") for stage in (2, 3)),
    Shape(1, "bf16"),
]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_bucket_size_does_not_change_a_bit(rank_pools, ranks, shape):
    one_at_a_time, *others = (
        rank_pools(ranks).run(engine_jobs.train_in_buckets, shape, 3, 0.5, capacity)
        for capacity in (1, 1000, 2**25)
    )
    for other in others:
        for (losses, weights, norms), (_, others_weights, _) in zip(
            one_at_a_time, other, strict=True
        ):
            assert (losses, norms) == (other[0][0], other[0][2])
            assert min(norms) > 0.5
            assert all(torch.equal(weights[name], others_weights[name]) for name in weights)
