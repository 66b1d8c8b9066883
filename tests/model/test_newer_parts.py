"""The encoder–decoder with newer parts, compared with parts of transformers and torch.

Self-attention, gated networks and norms without a mean are Llama's. Cross-attention is torch's,
with each head of keys and values repeated for all queries that share it.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)

from model.blocks.attention import additive_mask
from model.config.transformer import AttentionBackend, ModelConfig
from model.losses.loss import CrossEntropy

PAD, WIDTH, HEADS = 0, 32, 4
FORMS = {
    "rotary": {"positions": "rotary"},
    "grouped": {"key_value_heads": 2},
    "rms": {"norm_kind": "rms", "norm_epsilon": 1e-3},
    "swiglu": {"activation": "swiglu"},
    "all, pre-norm": {
        **{"positions": "rotary", "rotary_base": 100.0, "key_value_heads": 1},
        **{"norm_kind": "rms", "activation": "swiglu", "norm": "pre"},
    },
}
ALL = {**FORMS["all, pre-norm"], "share_embeddings": "none"}
EACH = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


class Reference:
    """Our network, computed by parts of transformers and torch with our parameters."""

    def __init__(self, ours):
        config = self.config = ours.config
        self.ours = ours
        settings = LlamaConfig(
            hidden_size=WIDTH,
            num_attention_heads=HEADS,
            num_key_value_heads=config.groups,
            intermediate_size=config.feed_forward_width,
            attention_bias=True,
            mlp_bias=True,
            attn_implementation="eager",
            rope_parameters={"rope_type": "default", "rope_theta": config.rotary_base},
        )
        self.settings = settings
        self.table = LlamaRotaryEmbedding(settings)

    def logits(self, source, target_input):
        t, real = target_input.shape[1], source != PAD
        memory = self._stack(self.ours.encoder, source, additive_mask(real)[:, None, None, :])
        before = additive_mask(torch.ones(t, t, dtype=torch.bool).tril())[None, None]
        hidden = self._stack(self.ours.decoder, target_input, before, memory, ~real)
        return hidden @ self.ours.output_weight.T

    def _stack(self, stack, ids, mask, memory=None, padded=None):
        x = F.embedding(ids, self._matrix(memory is None)) * WIDTH**0.5
        if self.config.positions == "sinusoidal":
            x = x + self.ours.positions(0, ids.shape[1])
        for layer in stack.layers:
            steps = [("self_attention", lambda y, at=layer: self._self_attention(at, y, mask))]
            if memory is not None:
                steps.append(
                    ("cross_attention", lambda y, at=layer: self._cross(at, y, memory, padded))
                )
            steps.append(("feed_forward", lambda y, at=layer: self._network(at.feed_forward, y)))
            for name, compute in steps:
                norm = getattr(layer, f"{name}_norm")
                if self.config.norm == "pre":
                    x = x + compute(self._norm(norm, x))
                else:
                    x = self._norm(norm, x + compute(x))
        return self._norm(stack.last_norm, x) if self.config.norm == "pre" else x

    def _matrix(self, of_source):
        own = self.ours.source_embedding if of_source else None
        return (own or self.ours.target_embedding).weight

    def _norm(self, ours, x):
        if self.config.norm_kind == "layer":
            return F.layer_norm(x, (WIDTH,), ours.weight, ours.bias, self.config.norm_epsilon)
        theirs = LlamaRMSNorm(WIDTH, self.config.norm_epsilon)
        return torch.func.functional_call(theirs, {"weight": ours.weight}, (x,))

    def _network(self, ours, x):
        if self.config.activation != "swiglu":
            return ours.outer(F.relu(ours.inner(x)))
        gate, up = (p.chunk(2) for p in (ours.gate_and_inner.weight, ours.gate_and_inner.bias))
        state = {
            **{"gate_proj.weight": gate[0], "gate_proj.bias": up[0]},
            **{"up_proj.weight": gate[1], "up_proj.bias": up[1]},
            **{"down_proj.weight": ours.outer.weight, "down_proj.bias": ours.outer.bias},
        }
        return torch.func.functional_call(LlamaMLP(self.settings), state, (x,))

    def _self_attention(self, layer, x, mask):
        ours, shared = layer.self_attention, self.config.groups * WIDTH // HEADS
        state = {}
        for kind in ("weight", "bias"):
            fused = getattr(ours.query_key_value, kind).split([WIDTH, shared, shared])
            state |= {f"{n}_proj.{kind}": part for n, part in zip("qkv", fused, strict=True)}
            state[f"o_proj.{kind}"] = getattr(ours.output, kind)
        position = torch.arange(x.shape[1])[None]
        table = self.table(x, position)
        if self.config.positions != "rotary":  # rotate by an angle of 0
            table = torch.ones_like(table[0]), torch.zeros_like(table[1])
        theirs = LlamaAttention(self.settings, layer_idx=0)
        return torch.func.functional_call(theirs, state, (x, table, mask))[0]

    def _cross(self, layer, x, memory, padded):
        ours, width = layer.cross_attention, WIDTH // HEADS
        heads = [getattr(ours.key_value, kind).unflatten(0, (2, -1, width)) for kind in KINDS]
        shared = HEADS // self.config.groups
        keys_and_values = [kind.repeat_interleave(shared, dim=1).flatten(0, 2) for kind in heads]
        weight, bias = (
            torch.cat([getattr(ours.query, kind), rest])
            for kind, rest in zip(KINDS, keys_and_values, strict=True)
        )
        theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        state = {"in_proj_weight": weight, "in_proj_bias": bias}
        state |= {f"out_proj.{kind}": getattr(ours.output, kind) for kind in KINDS}
        asked = {"key_padding_mask": padded, "need_weights": False}
        return torch.func.functional_call(theirs, state, (x, memory, memory), asked)[0]


KINDS = ("weight", "bias")


@pytest.mark.parametrize("backend", list(AttentionBackend))
@EACH
def test_logits_loss_and_gradients_equal_those_of_the_reference(
    build, randomise_vectors, sentences, as_input, form, backend
):
    ours = build(backend=backend, **form)
    randomise_vectors(ours)
    source, target = sentences([9, 4, 17]), sentences([6, 12, 3], seed=2)
    target_input, real = as_input(target), target != PAD
    expected_logits = Reference(ours).logits(source, target_input)
    logits = ours.logits(ours.decode(target_input, ours.encode(source), source))
    torch.testing.assert_close(logits[real], expected_logits[real], rtol=0, atol=2e-5)

    expected = F.cross_entropy(expected_logits[real], target[real], reduction="sum")
    sums = ours(source, target_input, target, CrossEntropy(0.0))
    torch.testing.assert_close(sums.smoothed, expected, rtol=1e-6, atol=0)
    parameters = list(ours.parameters())
    for found, wanted in zip(
        torch.autograd.grad(sums.smoothed / real.sum(), parameters),
        torch.autograd.grad(expected / real.sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("backend", list(AttentionBackend))
@EACH
@torch.no_grad()
def test_the_loss_in_bf16_is_close_to_the_reference(
    build, randomise_vectors, sentences, as_input, form, backend
):
    ours = build(backend=backend, **form)
    randomise_vectors(ours)
    source, target = sentences([9, 4, 17]), sentences([6, 12, 3], seed=2)
    target_input, real = as_input(target), target != PAD
    ours.to(torch.bfloat16)
    rounded = build(**form)
    rounded.load_state_dict({name: x.float() for name, x in ours.state_dict().items()})
    expected = F.cross_entropy(
        Reference(rounded).logits(source, target_input)[real], target[real], reduction="sum"
    )
    found = ours(source, target_input, target, CrossEntropy(0.0)).smoothed
    assert abs(found.item() / expected.item() - 1) < 0.02


def test_rotated_positions_may_start_anywhere(build, sentences):
    """Only distances matter, and for the source only in self-attention."""
    model = build(**FORMS["rotary"]).eval()
    source = sentences([9])
    rotary, shift = model.rotary, 5
    memory = model.encode(source)

    def later(position, longest):
        return rotary(position + shift, longest + shift)

    model.rotary = None
    model.__dict__["rotary"] = later  # replaces the module
    torch.testing.assert_close(model.encode(source), memory, rtol=0, atol=1e-5)


@torch.no_grad()
def test_initial_weights_have_the_spread_of_the_paper(build):
    model = build(width=128, feed_forward_width=256, pieces=400, heads=4, **FORMS["all, pre-norm"])
    layer = model.decoder.layers[0]
    fused, gated = (6 / (4 * 128)) ** 0.5, (6 / (128 + 256)) ** 0.5
    for projection, bound in (
        (layer.self_attention.query_key_value, fused),
        (layer.cross_attention.key_value, fused),
        (layer.feed_forward.gate_and_inner, gated),
    ):
        assert 0.99 * bound < projection.weight.abs().max() <= bound
        assert not projection.bias.any()
    assert torch.equal(model.decoder.last_norm.weight, torch.ones(128))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 4, "key_value_heads": 3}, r"heads is 4.*key_value_heads = 3"),
        ({"rotary_base": 500.0}, r"rotary_base is 500.*sinusoidal.*rotates nothing"),
        ({"positions": "rotary", "width": 12, "heads": 4}, r"4 heads is 3 wide.*pairs"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**settings)
