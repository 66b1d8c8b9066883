import math

import pytest
import torch
from torch import nn

from model.blocks.attention import (
    LONG_ROW,
    CrossAttention,
    SelfAttention,
    additive_mask,
    attention,
    attention_scores,
    attention_weights,
    default_backend,
)
from model.config.transformer import AttentionBackend, ModelConfig

CONFIG = ModelConfig(width=16, heads=4)
BOTH = pytest.mark.parametrize("backend", list(AttentionBackend))


def inputs(t=5, s=7, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, t, 4), (2, 3, s, 4), (2, 3, s, 4)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def visible_keys(s=7):
    return (torch.arange(s) < torch.tensor([[s], [s - 3]]))[:, None, None, :]


def padding_mask(s=7):
    return additive_mask(visible_keys(s))


def by_hand(query, keys, values, visible):
    """Compute the paper's §3.2.1 by single numbers; query t may use key s if visible(b, t, s)."""
    out = torch.zeros_like(query)
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for t in range(query.shape[2]):
                seen = [s for s in range(keys.shape[2]) if visible(b, t, s)]
                dots = [(query[b, h, t] @ keys[b, h, s]).item() for s in seen]
                powers = [math.exp(dot / math.sqrt(query.shape[3])) for dot in dots]
                for power, s in zip(powers, seen, strict=True):
                    out[b, h, t] += power / sum(powers) * values[b, h, s]
    return out


@BOTH
def test_padded_attention_equals_the_formula_of_the_paper(backend):
    query, keys, values = (x.detach() for x in inputs())
    visible = visible_keys()
    expected = by_hand(query, keys, values, lambda b, t, s: bool(visible[b, 0, 0, s]))
    result = attention(query, keys, values, mask=padding_mask(), backend=backend)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@BOTH
def test_causal_attention_equals_the_formula_of_the_paper(backend):
    query, keys, values = (x.detach() for x in inputs(t=6, s=6))
    expected = by_hand(query, keys, values, lambda b, t, s: s <= t)
    result = attention(query, keys, values, causal=True, backend=backend)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize("kind", ["full", "padded", "causal"])
def test_all_attention_backends_agree_in_results_and_gradients(kind, dtype, tolerance):
    options = {"full": {}, "padded": {"mask": padding_mask()}, "causal": {"causal": True}}[kind]
    outcomes = []
    for backend in AttentionBackend:
        leaves = inputs(t=7, s=7, dtype=dtype)
        result = attention(*leaves, **options, backend=backend)
        (result.float() ** 2).sum().backward()
        outcomes.append([result, *(leaf.grad for leaf in leaves)])
    first_outcome, *others = outcomes
    assert others
    for first, *found in zip(first_outcome, *others, strict=True):
        for other in found:
            torch.testing.assert_close(first, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("keys", [1, 2, 15, 16, 17, 31, 32, 33, 255, 256, 257])
def test_attention_weights_are_the_softmax_of_rows_of_any_length(keys, dtype, tolerance):
    generator = torch.Generator().manual_seed(keys)
    scores = torch.randn(2, 3, 5, keys, generator=generator).to(dtype)
    scores[0, ..., keys // 2 + 1 :] = float("-inf")  # hidden, as padding is
    towards = torch.randn(scores.shape, generator=generator).to(dtype)
    ours, exact = scores.clone().requires_grad_(), scores.double().requires_grad_()
    weights = attention_weights(ours)
    assert weights.dtype == (dtype if keys >= LONG_ROW else torch.float32)
    expected = torch.softmax(exact, dim=-1)
    torch.testing.assert_close(weights.double(), expected, rtol=tolerance, atol=tolerance)
    weights.backward(towards.to(weights.dtype))
    expected.backward(towards.double())
    torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("keys", [7, LONG_ROW])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masked_keys_get_no_weight_and_do_not_change_other_scores(keys, dtype):
    query, key, _ = (x.detach() for x in inputs(s=keys, dtype=dtype))
    free = attention_scores(query, key, None, causal=False)
    hidden = attention_scores(query, key, padding_mask(keys), causal=False)
    visible = visible_keys(keys).expand_as(free)
    assert torch.equal(hidden[visible], free[visible].to(hidden.dtype))
    weights = attention_weights(hidden)
    assert not weights[~visible].any()
    assert weights[visible].all()


@BOTH
def test_attention_dropout_keeps_the_expected_value_of_the_weights(backend):
    query, keys, _ = (x.detach() for x in inputs(t=200, s=50))
    ones = torch.ones(2, 3, 50, 4)
    torch.manual_seed(0)
    result = attention(query, keys, ones, dropout=0.4, backend=backend)
    assert result.std() > 0.05
    torch.testing.assert_close(result.mean(), torch.tensor(1.0), rtol=0, atol=0.02)


def test_the_default_backend_is_matmul_on_a_cpu_and_sdpa_on_a_gpu():
    assert default_backend(torch.device("cpu")) is AttentionBackend.MATMUL
    assert default_backend(torch.device("cuda")) is AttentionBackend.SDPA


def transplanted_reference(parts, output):
    reference = nn.MultiheadAttention(CONFIG.width, CONFIG.heads, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        reference.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        reference.out_proj.weight.copy_(output.weight)
        reference.out_proj.bias.copy_(output.bias)
    return reference


@BOTH
def test_self_attention_equals_torchs_multihead_attention(backend):
    torch.manual_seed(0)
    ours = SelfAttention(CONFIG, backend)
    reference = transplanted_reference([ours.query_key_value], ours.output)
    x = torch.randn(2, 7, CONFIG.width)
    expected, _ = reference(x, x, x, key_padding_mask=~visible_keys()[:, 0, 0])
    torch.testing.assert_close(ours(x, padding_mask()), expected, rtol=0, atol=1e-6)


@BOTH
def test_cross_attention_equals_torchs_multihead_attention(backend):
    torch.manual_seed(0)
    ours = CrossAttention(CONFIG, backend)
    reference = transplanted_reference([ours.query, ours.key_value], ours.output)
    x, memory = torch.randn(2, 4, CONFIG.width), torch.randn(2, 7, CONFIG.width)
    expected, _ = reference(x, memory, memory, key_padding_mask=~visible_keys()[:, 0, 0])
    result = ours(x, ours.project_memory(memory), padding_mask())
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_attention_dropout_acts_only_in_training():
    torch.manual_seed(0)
    ours = SelfAttention(ModelConfig(width=16, heads=4, attention_dropout=0.5))
    x, mask = torch.randn(2, 7, 16), padding_mask()
    assert not torch.equal(ours(x, mask), ours(x, mask))
    ours.eval()
    assert torch.equal(ours(x, mask), ours(x, mask))
