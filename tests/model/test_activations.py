"""The feed-forward networks of a decoder-only network, compared with Hugging Face's."""

import pytest
import torch
from torch.nn import functional as F
from transformers import GPT2Config, LlamaConfig
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.models.llama.modeling_llama import LlamaMLP

from model.blocks.feed_forward import FeedForward, gelu_tanh
from model.blocks.swiglu import SwiGLU


def outcome(network, x):
    y = network(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x])]


@pytest.mark.parametrize(
    ("name", "theirs"), [("relu", "relu"), ("gelu", "gelu"), ("gelu_tanh", "gelu_new")]
)
def test_feed_forward_networks_equal_those_of_gpt2(name, theirs):
    torch.manual_seed(0)
    ours = FeedForward(12, 20, name, bias=True)
    settings = GPT2Config(n_embd=12, n_head=2, activation_function=theirs, resid_pdrop=0.0)
    reference = GPT2MLP(20, settings)
    with torch.no_grad():
        for mine, their in ((ours.inner, reference.c_fc), (ours.outer, reference.c_proj)):
            their.weight.copy_(mine.weight.T)
            their.bias.copy_(mine.bias)
    x = (3 * torch.randn(2, 5, 12)).requires_grad_()
    for mine, other in zip(outcome(ours, x), outcome(reference, x), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


def test_activations_by_different_names_differ():
    x = 3 * torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    found = []
    for name in ("relu", "gelu", "gelu_tanh"):
        torch.manual_seed(0)
        found.append(FeedForward(12, 20, name, bias=True)(x))
    assert not torch.allclose(found[1], found[2], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(found[0], found[1], rtol=1e-2, atol=1e-2)


def test_gelu_tanh_is_as_close_to_the_formula_as_torchs():
    spread = torch.randn(3000, generator=torch.Generator().manual_seed(0))
    x = torch.cat([4 * spread, torch.tensor([0.0, -20.0, 20.0, -1e4, 1e4])])
    exact = outcome(lambda v: F.gelu(v, approximate="tanh"), x.double().requires_grad_())
    torchs = outcome(lambda v: F.gelu(v, approximate="tanh"), x.clone().requires_grad_())
    ours = outcome(gelu_tanh, x.clone().requires_grad_())
    for mine, other, right in zip(ours, torchs, exact, strict=True):
        largest = (mine - right).abs() / right.abs().clamp(min=1)
        assert largest.max() < 2e-6
        torch.testing.assert_close(mine, other, rtol=2e-6, atol=2e-6)


def test_gelu_tanh_in_bf16_equals_torchs():
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(gelu_tanh(x), F.gelu(x, approximate="tanh"))


@pytest.mark.parametrize("bias", [True, False])
def test_swiglu_equals_that_of_llama(bias):
    torch.manual_seed(0)
    ours = SwiGLU(12, 20, bias)
    settings = LlamaConfig(hidden_size=12, intermediate_size=20, num_attention_heads=2)
    settings.mlp_bias = bias
    reference = LlamaMLP(settings)
    kinds = ["weight", "bias"] if bias else ["weight"]
    with torch.no_grad():
        for kind in kinds:
            gate, inner = getattr(ours.gate_and_inner, kind).chunk(2)
            getattr(reference.gate_proj, kind).copy_(gate)
            getattr(reference.up_proj, kind).copy_(inner)
            getattr(reference.down_proj, kind).copy_(getattr(ours.outer, kind))
    x = torch.randn(2, 5, 12, requires_grad=True)
    for mine, other in zip(outcome(ours, x), outcome(reference, x), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)
