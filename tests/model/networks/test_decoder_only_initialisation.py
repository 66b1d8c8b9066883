import math

import pytest
import torch

from model.networks.decoder_only_initialisation import SPREAD


@pytest.fixture
def large(build_decoder_only):
    def build_large(**settings):
        network = build_decoder_only(pieces=500, context_length=200, layers=8, width=64, **settings)
        torch.manual_seed(0)
        return type(network)(network.config, 500, 0, 200)  # without what the tests add

    return build_large


@pytest.mark.parametrize("preset", ["gpt2", "llama"])
def test_spread_of_every_weight(large, preset):
    network = large(preset=preset)
    residual = SPREAD / math.sqrt(16)  # two sums a layer
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter))
        else:
            last = name.endswith(("output.weight", "outer.weight"))
            assert abs(parameter.std() / (residual if last else SPREAD) - 1) < 0.05, name
            assert abs(parameter.mean()) < SPREAD / 10, name
    assert SPREAD == 0.02


def test_seed_decides_every_weight(build_decoder_only):
    first, again, other = (build_decoder_only(seed=seed) for seed in (5, 5, 6))
    for one, two in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
