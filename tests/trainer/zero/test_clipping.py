"""Clipping divides gradients above the threshold as torch does, and only these.

Losses do not show this, because Adam divides by the gradient's size: a run whose steps are all
clipped has the same curve under any threshold. Adam's first moment after one step shows it: it is
(1 - β₁) times the gradient that Adam got.
"""

import pytest
import torch
from support.ranks import engine_jobs
from support.ranks.engine_jobs import Shape

from trainer.zero.fragments import owned_fragments

SHAPES = {
    "stage-0": Shape(0),
    "stage-1": Shape(1),
    "stage-3": Shape(3),
    "bf16-stage-1": Shape(1, "bf16"),
    "bf16-stage-2": Shape(2, "bf16"),
    "exact-stage-1": Shape(1, numerics="exact"),
    "exact-bf16-stage-3": Shape(3, "bf16", numerics="exact"),
}


def gradients_given_to_adam(placement, shape, thresholds):
    """Return the norm before clipping, and this rank's part of Adam's gradient for each threshold.

    A threshold is a factor of the norm; 0 does not clip.
    """
    norm, given = 0.0, {}
    for threshold in (0, *thresholds):
        engine = engine_jobs.make_engine(placement, shape, clipping=threshold * norm)
        norms = engine_jobs.record_norms(engine)
        engine_jobs.train_steps(engine, 1, 1)
        beta = engine.optimizer.param_groups[0]["betas"][0]
        given[threshold] = {
            (held.parameter, held.start): held.tensor / (1 - beta)
            for held in owned_fragments(engine, ["exp_avg"])
        }
        engine.destroy()
        assert norm in (0.0, norms[0])  # the norm before clipping, whatever the threshold
        norm = norms[0]
    return norm, given


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gradients_are_clipped_as_by_torch(rank_pools, shape):
    ranks = rank_pools(2).run(gradients_given_to_adam, shape, (0.3, 3.0))
    norm = ranks[0][0]
    whole = {
        threshold: torch.cat([part for _, given in ranks for part in given[threshold].values()])
        for threshold in (0, 0.3, 3.0)
    }
    assert norm == pytest.approx(float(whole[0].norm()), rel=1e-3)
    assert torch.equal(whole[3.0], whole[0])  # the norm is below the threshold
    by_torch = torch.nn.Parameter(torch.zeros_like(whole[0]))
    by_torch.grad = whole[0].clone()
    torch.nn.utils.clip_grad_norm_([by_torch], 0.3 * norm)
    torch.testing.assert_close(whole[0.3], by_torch.grad, rtol=1e-3, atol=1e-7)
    assert float(whole[0.3].norm()) == pytest.approx(0.3 * norm, rel=1e-3)
