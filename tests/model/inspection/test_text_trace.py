"""The trace of a text, compared with Hugging Face's classes and with the network's modules."""

import pytest
import torch
from torch.nn import functional as F
from transformers import BertForMaskedLM, GPT2LMHeadModel, LlamaForCausalLM

from model.config.transformer import AttentionBackend
from model.errors import ModelError
from model.hugging_face.bert import to_bert
from model.hugging_face.files import write_model
from model.hugging_face.language_model import save_hugging_face
from model.inspection.text_trace import trace_decoder_only, trace_masked

IDS = [1, 9, 4, 17, 23, 5, 5, 2]
PLACES = [2, 5]
ENCODERS = {
    "bert": {"preset": "bert"},
    "pre": {},
    "segments": {"norm": "post", "segments": 3, "activation": "gelu_tanh"},
}
DECODERS = {
    "gpt2": {"preset": "gpt2"},
    "llama": {"preset": "llama", "key_value_heads": 2},
    "sines": {"positions": "sinusoidal", "activation": "relu"},
}
BACKENDS = [None, *AttentionBackend]
EAGER = {"attn_implementation": "eager"}
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def close(found, expected):
    """Require equality up to a hundred-thousandth of the largest value."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def check_layers(stack, layers, pre_norm):
    """Check that each layer sums its input and its sub-layers' outputs; return the last sum."""
    x_btm = stack.embedding.sum_btm
    x_btm = x_btm if stack.embedding.normed_btm is None else stack.embedding.normed_btm
    for traced, layer in zip(stack.layers, layers, strict=True):
        attention = traced.self_attention
        close(attention.weights_bhts.sum(dim=-1), torch.ones_like(attention.weights_bhts[..., 0]))
        close(attention.weights_bhts @ attention.values_bhsd, attention.mix_bhtd)
        joined = attention.mix_bhtd.transpose(1, 2).flatten(2)
        close(layer.self_attention.output(joined), attention.output_btm)
        for sublayer, residual, norm in (
            (attention, traced.self_attention_residual, layer.self_attention_norm),
            (traced.feed_forward, traced.feed_forward_residual, layer.feed_forward_norm),
        ):
            close(residual.input_btm, x_btm)
            close(residual.sum_btm, x_btm + sublayer.output_btm)
            close(residual.normed_btm, norm(x_btm if pre_norm else residual.sum_btm))
            x_btm = residual.output_btm
            assert x_btm is (residual.sum_btm if pre_norm else residual.normed_btm)
        close(
            layer.feed_forward.outer(traced.feed_forward.inner_btf), traced.feed_forward.output_btm
        )
    return x_btm


@every_backend
@pytest.mark.parametrize("form", ENCODERS)
@torch.no_grad()
def test_a_traced_encoder_computes_the_values_of_its_modules(build_masked, form, backend):
    network = build_masked(backend=backend, **ENCODERS[form]).eval()
    traced = trace_masked(network, IDS, PLACES)
    encoder, embedding = network.encoder, traced.stack.embedding
    close(embedding.tokens_btm[0], encoder.embedding.weight[IDS])
    close(embedding.positions_tm, encoder.positions.weight[: len(IDS)])
    parts = [embedding.tokens_btm, embedding.positions_tm]
    if encoder.segments is not None:
        close(embedding.segments_btm[0, 3], encoder.segments.weight[0])
        parts.append(embedding.segments_btm)
    close(embedding.sum_btm, sum(parts))
    pre_norm = network.encoder.config.norm == "pre"
    last = check_layers(traced.stack, encoder.layers, pre_norm)
    close(traced.stack.output_btm, encoder.last_norm(last))
    hidden_nm = traced.stack.output_btm[0, PLACES]
    close(traced.inner_nm, network.head.activation(network.head.dense(hidden_nm)))
    close(traced.normed_nm, network.head.norm(traced.inner_nm))
    logits = F.linear(traced.normed_nm, encoder.embedding.weight, network.output_bias)
    close(traced.logits_nv, logits)
    close(traced.probabilities_nv, logits.softmax(dim=-1))


@every_backend
@pytest.mark.parametrize("form", DECODERS)
@torch.no_grad()
def test_a_traced_decoder_computes_the_values_of_its_modules(build_decoder_only, form, backend):
    network = build_decoder_only(backend=backend, **DECODERS[form]).eval()
    traced = trace_decoder_only(network, IDS)
    embedding = traced.stack.embedding
    close(embedding.tokens_btm[0], network.embedding(torch.tensor(IDS)))
    if form == "llama":
        assert embedding.positions_tm is None
        close(embedding.sum_btm, embedding.tokens_btm)
    else:
        close(embedding.sum_btm, embedding.tokens_btm + embedding.positions_tm)
    last = check_layers(traced.stack, network.layers, pre_norm=True)
    close(traced.stack.output_btm, network.last_norm(last))
    hidden = network.hidden(torch.tensor([IDS]), torch.zeros(1, len(IDS), dtype=torch.int64))
    close(traced.logits_btv, network.logits(hidden))
    above = torch.ones(len(IDS), len(IDS)).triu(1).bool()
    for layer in traced.stack.layers:
        assert bool((layer.self_attention.scores_bhts[0, :, above] == float("-inf")).all())
        assert bool((layer.self_attention.weights_bhts[0, :, above] == 0).all())


@torch.no_grad()
def test_traced_states_and_weights_equal_those_of_bert(build_masked, tmp_path):
    network = build_masked(preset="bert").eval()
    write_model(tmp_path, to_bert(network, 0))
    theirs = BertForMaskedLM.from_pretrained(tmp_path, **EAGER).eval()
    expected = theirs(torch.tensor([IDS]), output_hidden_states=True, output_attentions=True)
    traced = trace_masked(network, IDS, PLACES)
    first, *others = expected.hidden_states
    close(traced.stack.embedding.normed_btm, first)
    for layer, state, weights in zip(traced.stack.layers, others, expected.attentions, strict=True):
        close(layer.feed_forward_residual.output_btm, state)
        close(layer.self_attention.weights_bhts, weights)
    close(traced.logits_nv, expected.logits[0, PLACES])


@pytest.mark.parametrize(
    ("form", "family"), [("gpt2", GPT2LMHeadModel), ("llama", LlamaForCausalLM)]
)
@torch.no_grad()
def test_traced_states_and_weights_equal_those_of_gpt2_and_llama(
    build_decoder_only, tmp_path, form, family
):
    network = build_decoder_only(**DECODERS[form]).eval()
    save_hugging_face(network, tmp_path, bos_id=1, eos_id=2, pad_id=0)
    theirs = family.from_pretrained(tmp_path, **EAGER).eval()
    expected = theirs(torch.tensor([IDS]), output_hidden_states=True, output_attentions=True)
    traced = trace_decoder_only(network, IDS)
    close(traced.stack.embedding.sum_btm, expected.hidden_states[0])
    for number, layer in enumerate(traced.stack.layers[:-1]):  # their last state is normed
        close(layer.feed_forward_residual.sum_btm, expected.hidden_states[number + 1])
    for layer, weights in zip(traced.stack.layers, expected.attentions, strict=True):
        close(layer.self_attention.weights_bhts, weights)
    close(traced.stack.output_btm, expected.hidden_states[-1])
    close(traced.logits_btv, expected.logits)


def test_a_trace_removes_its_hooks(build_masked):
    network = build_masked().eval()
    trace_masked(network, IDS, PLACES)
    assert not any(module._forward_hooks for module in network.modules())


def test_invalid_inputs_of_a_trace_are_refused(build_masked, build_decoder_only):
    with pytest.raises(ModelError, match="training mode"):
        trace_masked(build_masked().train(), IDS, PLACES)
    network = build_decoder_only().eval()
    with pytest.raises(ModelError, match="no tokens"):
        trace_decoder_only(network, [])
    with pytest.raises(ModelError):
        trace_decoder_only(network, [1] * 25)
    assert not any(module._forward_hooks for module in network.modules())
