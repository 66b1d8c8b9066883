import math

import torch


def test_spread_of_every_kind_of_weight(build):
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


def test_biases_and_norms(build):
    for name, parameter in build().named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter))


def test_seed_decides_every_weight(build):
    first, again, other = build(seed=5), build(seed=5), build(seed=6)
    for one, two in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.target_embedding.weight, other.target_embedding.weight)
