"""The moving average against its formula; that it moves between shapes is in test_fragments.py."""

import pytest
import torch
from support import shape_jobs
from support.engine_jobs import Shape
from support.shape_jobs import DECAY, Network

from trainer.fragments import EMA, MASTER


@pytest.mark.parametrize(
    "shape", [Shape(0), Shape(1), Shape(3), Shape(1, "bf16"), Shape(2, "bf16")], ids=str
)
def test_it_starts_at_the_weights_and_follows_them(rank_pools, shape):
    states = []
    for steps in range(4):
        results = rank_pools(2).run(shape_jobs.train, shape, Network(), steps)
        states.append(shape_jobs.whole([owned for _, owned in results]))
    names = [name for kind, name in states[0] if kind == MASTER]
    for name in names:
        average = states[0][MASTER, name].double()
        assert torch.equal(states[0][EMA, name], states[0][MASTER, name])
        for state in states[1:]:
            average = DECAY * average + (1 - DECAY) * state[MASTER, name].double()
            assert state[EMA, name].tolist() == pytest.approx(average.tolist(), rel=1e-5, abs=1e-7)
        assert not torch.equal(states[3][EMA, name], states[3][MASTER, name])
