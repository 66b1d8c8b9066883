"""The moving average, compared with its formula, and its use by validation.

test_fragments.py tests that the average moves between shapes.
"""

import pytest
import torch
from support.ranks import shape_jobs
from support.ranks.engine_jobs import Shape
from support.ranks.shape_jobs import DECAY, Network

from run_store.checkpoints.fragment import EMA, MASTER


@pytest.mark.parametrize(
    "shape", [Shape(0), Shape(1), Shape(3), Shape(1, "bf16"), Shape(2, "bf16")], ids=str
)
def test_the_average_starts_at_the_weights_and_follows_them(rank_pools, shape):
    states = []
    for steps in range(3):
        results = rank_pools(2).run(shape_jobs.train, shape, Network(), steps)
        states.append(shape_jobs.whole([owned for _, owned in results]))
    names = [name for kind, name in states[0] if kind == MASTER]
    for name in names:
        average = states[0][MASTER, name].double()
        assert torch.equal(states[0][EMA, name], states[0][MASTER, name])
        for state in states[1:]:
            average = DECAY * average + (1 - DECAY) * state[MASTER, name].double()
            assert state[EMA, name].tolist() == pytest.approx(average.tolist(), rel=1e-5, abs=1e-7)
        assert not torch.equal(states[-1][EMA, name], states[-1][MASTER, name])


@pytest.mark.parametrize("shape", [Shape(0), Shape(3), Shape(2, "bf16")], ids=str)
def test_each_rank_can_compute_with_the_whole_average(rank_pools, shape):
    results = rank_pools(2).run(shape_jobs.train_looking_at_the_average, shape, Network(), 2)
    undisturbed = rank_pools(2).run(shape_jobs.train, shape, Network(), 2)
    state = shape_jobs.whole([owned for _, owned in undisturbed])
    for (losses, seen), (expected_losses, _) in zip(results, undisturbed, strict=True):
        assert losses == expected_losses
        for name, parameter in seen.items():
            assert parameter.dtype == (torch.bfloat16 if shape.precision == "bf16" else torch.float)
            average = state[EMA, name].view_as(parameter)
            assert torch.equal(parameter, average.to(parameter.dtype))
            assert not torch.equal(parameter, state[MASTER, name].view_as(parameter))
