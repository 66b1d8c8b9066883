"""Grouped-query attention compared with Llama's, with masked attention, and with single parts."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

from model.blocks.attention import SelfAttention, additive_mask
from model.blocks.cache import KeyValueCache
from model.blocks.packing import PackedMask, packing_of_parts
from model.blocks.rotary import RotaryPositions
from model.config.decoder_only import DecoderOnlyConfig
from model.config.transformer import AttentionBackend

PADDED = [AttentionBackend.MATMUL, AttentionBackend.SDPA]
WIDTH, HEADS = 32, 4


def attention_with(groups, backend=None, bias=True, **settings):
    config = DecoderOnlyConfig(
        **{"width": WIDTH, "heads": HEADS, "key_value_heads": groups, "bias": bias, **settings}
    )
    torch.manual_seed(0)
    attention = SelfAttention(config, backend)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
    return attention


def inputs(t=9, rows=2):
    return torch.randn(rows, t, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()


def causal_mask(t):
    return additive_mask(torch.ones(t, t, dtype=torch.bool).tril())


@pytest.mark.parametrize("backend", PADDED)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_queries_with_rotary_positions_equal_llamas_attention(groups, bias, backend):
    ours = attention_with(groups, backend, bias)
    settings = LlamaConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_key_value_heads=groups,
        attention_bias=bias,
        attn_implementation="eager",
    )
    theirs = LlamaAttention(settings, layer_idx=0)
    with torch.no_grad():
        for kind in ("weight", "bias") if bias else ("weight",):
            fused = getattr(ours.query_key_value, kind).split([32, 8 * groups, 8 * groups])
            parts = (theirs.q_proj, theirs.k_proj, theirs.v_proj)
            for part, tensor in zip(parts, fused, strict=True):
                getattr(part, kind).copy_(tensor)
            getattr(theirs.o_proj, kind).copy_(getattr(ours.output, kind))
    x, position = inputs(), torch.arange(9)
    table = LlamaRotaryEmbedding(settings)(x, position.unsqueeze(0))
    expected, _ = theirs(x, table, causal_mask(9)[None, None])
    found = ours(x, causal=True, rotation=RotaryPositions(8, 10000.0)(position, 9))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    towards = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    for mine, other in zip(
        torch.autograd.grad(found, [x, ours.output.weight], towards),
        torch.autograd.grad(expected, [x, theirs.o_proj.weight], towards),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-5)


@pytest.mark.parametrize("backend", PADDED)
def test_attention_with_a_mask_that_hides_the_future_equals_causal_attention(backend):
    attention = attention_with(2, backend)
    torch.testing.assert_close(
        attention(inputs(), causal_mask(9)), attention(inputs(), causal=True), rtol=0, atol=1e-6
    )


def test_packed_parts_attend_only_to_their_earlier_tokens():
    attention = attention_with(2)
    part = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2]])
    packing = packing_of_parts(part)
    x = inputs(rows=1)
    found = attention(x, PackedMask(packing, packing), True)
    expected = torch.cat(
        [attention(piece, causal=True) for piece in x.split([3, 2, 4], dim=1)], dim=1
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


def test_dropout_of_grouped_attention_acts_only_in_training():
    attention = attention_with(2, attention_dropout=0.5)
    assert not torch.equal(attention(inputs()), attention(inputs()))
    attention.eval()
    assert torch.equal(attention(inputs()), attention(inputs()))


@torch.no_grad()
def test_a_cache_stores_one_head_per_group_and_gives_the_same_results():
    attention, x = attention_with(2), inputs()
    positions = RotaryPositions(8, 10000.0)
    expected = attention(x, None, True, None, positions(torch.arange(9), 9))
    lengths, cache = torch.tensor([3, 6]), KeyValueCache()
    attention(x[:, :6], None, True, cache, positions(torch.arange(6), 6))
    for more in range(3):
        places = lengths + more
        room = cache.set_next_positions(places, int(places.max()) + 1)
        mask = additive_mask(torch.arange(room) <= places.unsqueeze(1))[:, None, None, :]
        newest = x[torch.arange(2), places].unsqueeze(1)
        found = attention(newest, mask, False, cache, positions(places.unsqueeze(1), 9))
        torch.testing.assert_close(
            found.squeeze(1), expected[torch.arange(2), places], rtol=0, atol=1e-5
        )
    stored = torch.zeros(2, 2, 1, 8)  # four heads in two groups
    assert cache.append(stored, stored)[0].shape == (2, 2, room, 8)
