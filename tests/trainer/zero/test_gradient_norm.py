"""A step's gradient norm is known before it is applied, and a refused step changes nothing.

Decision 0102 has the reasons.
"""

from functools import cache

import pytest
import torch
from support.ranks import spike_jobs
from support.ranks.engine_jobs import (
    SLOTS,
    SMOOTHING,
    VOCABULARY,
    Shape,
    make_model,
    micro_batch,
)

from model.losses.loss import CrossEntropy
from trainer.tasks.batch import to_device
from trainer.tasks.randomness import seed_torch
from trainer.zero.settings import parameter_groups

STEPS = 3
SHAPES = [(1, Shape(0)), (2, Shape(0)), (2, Shape(1)), (3, Shape(2)), (3, Shape(3))]
EXACT = [
    (ranks, Shape(stage, numerics="exact")) for ranks, stage in ((2, 0), (3, 1), (2, 2), (2, 3))
]
REFUSED = [
    Shape(0),
    Shape(1),
    Shape(2),
    Shape(3),
    Shape(1, "bf16"),
    *(Shape(stage, numerics="exact") for stage in (0, 1, 3)),
]


@cache
def torch_norms():
    """Return the norms of the same steps without DeepSpeed, by `torch.nn.utils.get_total_norm`."""
    model = make_model()
    optimizer = torch.optim.AdamW(
        parameter_groups(model, 0.01), lr=0.01, betas=(0.9, 0.98), eps=1e-9
    )
    norms = []
    for step in range(1, STEPS + 1):
        batches = [micro_batch(step, slot) for slot in range(SLOTS)]
        tokens = sum(batch.tokens("tgt") for batch in batches)
        for slot, read in enumerate(batches):
            batch = to_device(read, VOCABULARY, torch.device("cpu"))
            seed_torch(1, "dropout", step, slot)
            (model(*batch.inputs, CrossEntropy(SMOOTHING)).smoothed / tokens).backward()
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])))
        optimizer.step()
        optimizer.zero_grad()
    return norms


@pytest.mark.parametrize(("ranks", "shape"), SHAPES + EXACT, ids=str)
def test_the_norm_equals_that_of_torch_in_each_stage(rank_pools, ranks, shape):
    by_rank = rank_pools(ranks).run(spike_jobs.norms_of_steps, shape, STEPS)
    (observed, *norms), *others = (list(zip(*found, strict=True)) for found in by_rank)
    assert all(other == norms for _, *other in others)
    known, unknown = norms
    # With exact numerics, elements below 2⁻²¹ of the largest one are ignored.
    tolerance = 1e-3 if shape.numerics == "exact" else 1e-5
    assert known == pytest.approx(torch_norms(), rel=tolerance)
    assert unknown == pytest.approx(known, rel=1e-5)
    assert observed == pytest.approx(known, rel=tolerance)
    if shape.zero_stage == 0 or shape.numerics == "exact":
        assert unknown == known


@pytest.mark.parametrize("shape", REFUSED, ids=str)
def test_a_refused_step_does_not_change_later_steps(rank_pools, shape):
    """The grids do not change either, although the gradients of the step exceed them."""
    results = rank_pools(2).run(spike_jobs.train_past_refused_step, shape, 1000.0)
    expected = rank_pools(2).run(spike_jobs.train_without_the_step, shape)
    for result, other in zip(results, expected, strict=True):
        assert result["norm"] == results[0]["norm"] > 100
        assert bool(result["widened"]) == (shape.numerics == "exact")
        for name in ("losses", "peaks", "optimizer_step"):
            assert result[name] == other[name], name
        assert all(
            torch.equal(weight, other["weights"][name])
            for name, weight in result["weights"].items()
        )
