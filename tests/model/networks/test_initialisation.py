import math

import pytest
import torch

from model.networks.initialisation import INIT_STD


def test_initial_weights_of_a_transformer_have_the_expected_spread(build):
    model = build(width=128, feed_forward_width=256, pieces=400)
    glorot = math.sqrt(6 / (128 + 128)), math.sqrt(6 / (128 + 256))
    attention = model.decoder.layers[1].cross_attention
    fused = math.sqrt(6 / (4 * 128))  # one third of a Glorot (3 · 128, 128) matrix
    for weight, bound in [
        (attention.output.weight, glorot[0]),
        (model.encoder.layers[0].feed_forward.inner.weight, glorot[1]),
        (attention.query.weight, fused),
        (attention.key_value.weight, fused),
        (model.encoder.layers[0].self_attention.query_key_value.weight, fused),
    ]:
        assert 0.99 * bound < weight.abs().max() <= bound
        assert abs(weight.std() / (bound / math.sqrt(3)) - 1) < 0.02
    assert abs(model.target_embedding.weight.std() * math.sqrt(128) - 1) < 0.02


def test_initial_biases_are_zero_and_norm_weights_one(build):
    for name, parameter in build().named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter))


def test_the_seed_determines_all_weights_of_a_transformer(build):
    first, again, other = build(seed=5), build(seed=5), build(seed=6)
    for one, two in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.target_embedding.weight, other.target_embedding.weight)


@pytest.fixture
def large(build_decoder_only):
    def build_large(**settings):
        network = build_decoder_only(pieces=500, context_length=200, layers=8, width=64, **settings)
        torch.manual_seed(0)
        return type(network)(network.config, 500, 0, 200)  # with unchanged initial weights

    return build_large


@pytest.mark.parametrize("preset", ["gpt2", "llama"])
def test_initial_weights_of_a_decoder_only_network_have_the_expected_spread(large, preset):
    network = large(preset=preset)
    residual = INIT_STD / math.sqrt(16)  # each layer adds two sums
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter))
        else:
            last = name.endswith(("output.weight", "outer.weight"))
            assert abs(parameter.std() / (residual if last else INIT_STD) - 1) < 0.05, name
            assert abs(parameter.mean()) < INIT_STD / 10, name
    assert INIT_STD == 0.02


def test_the_seed_determines_all_weights_of_a_decoder_only_network(build_decoder_only):
    first, again, other = (build_decoder_only(seed=seed) for seed in (5, 5, 6))
    for one, two in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
