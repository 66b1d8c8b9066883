"""A trace has the values that the model computes: compared with other passes and the formulas."""

import dataclasses
import math

import pytest
import torch

from model.blocks.attention import additive_mask
from model.blocks.cache import KeyValueCache, capacity_for
from model.config.transformer import AttentionBackend, DecodingConfig
from model.errors import ModelError
from model.generation.search import beam_search, greedy_search, length_penalty
from model.inspection.layer_traces import AttentionTrace
from model.inspection.trace import Trace, trace
from model.networks.transformer import Transformer

NORMS = pytest.mark.parametrize("norm", ["post", "pre"])
SHARING = pytest.mark.parametrize("share_embeddings", ["all", "decoder", "none"])


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def randomise_vectors(model):
    """Change biases and norms, which start at 0 and 1, where a mistake could stay hidden."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))


def tensors_of(traced):
    """Yield all tensors of a trace, in order."""
    if isinstance(traced, torch.Tensor):
        yield traced
    elif isinstance(traced, tuple):
        for part in traced:
            yield from tensors_of(part)
    else:
        for field in dataclasses.fields(traced):
            yield from tensors_of(getattr(traced, field.name))


def attentions(traced: Trace) -> list[AttentionTrace]:
    found = [layer.self_attention for layer in traced.encoder.layers]
    for layer in traced.decoder.layers:
        found += [layer.self_attention, layer.cross_attention]
    return found


@pytest.fixture
def model(build):
    """Return a post-norm network with the fused backend."""
    return build(encoder_layers=2, decoder_layers=3).eval()


@pytest.fixture
def pair(sentences, as_input):
    """Return two sentences of different lengths on each side."""
    return sentences([7, 4]), as_input(sentences([5, 8], seed=2))


@NORMS
@SHARING
def test_a_trace_equals_the_fused_forward_pass(build, pair, norm, share_embeddings):
    source, target_input = pair
    fused = build(norm=norm, share_embeddings=share_embeddings).eval()
    for module in fused.modules():
        if hasattr(module, "backend"):
            module.backend = AttentionBackend.SDPA
    randomise_vectors(fused)
    traced = trace(fused, source, target_input)
    with torch.no_grad():
        memory = fused.encode(source)
        hidden = fused.decode(target_input, memory, source)
        logits = fused.logits(hidden)
    assert torch.equal(traced.encoder.output_btm, memory)
    assert torch.equal(traced.decoder.output_btm, hidden)
    assert torch.equal(traced.logits_btv, logits)
    close(traced.probabilities_btv, logits.softmax(dim=-1))
    assert len(attentions(traced)) == 2 + 2 * 2
    for attention in attentions(traced):
        close(attention.weights_bhts @ attention.values_bhsd, attention.mix_bhtd)
        close(attention.weights_bhts.sum(dim=-1), torch.ones(attention.scores_bhts.shape[:3]))


@torch.no_grad()
def test_a_trace_of_newer_parts_has_the_values_of_the_modules(build, pair):
    """Rotated queries and keys, repeated heads, a gated network, and no position vectors."""
    form = {"positions": "rotary", "key_value_heads": 2, "activation": "swiglu"}
    source, target_input = pair
    model = build(**form, norm_kind="rms").eval()
    traced = trace(model, source, target_input)
    embedding, layer = traced.encoder.embedding, traced.encoder.layers[0]
    assert not embedding.positions_tm.any()
    assert torch.equal(embedding.sum_btm, embedding.scaled_btm)
    for attention in attentions(traced):
        first, second, *_ = attention.values_bhsd.unbind(1)
        assert torch.equal(first, second)
        scores = attention.queries_bhtd @ attention.keys_bhsd.transpose(-1, -2) / math.sqrt(8)
        visible = attention.scores_bhts.isfinite()
        close(attention.scores_bhts[visible], scores[visible])
    own, network = model.encoder.layers[0].self_attention, model.encoder.layers[0].feed_forward
    unturned = own.query_key_value(embedding.sum_btm)[..., :32].unflatten(2, (4, 8)).transpose(1, 2)
    turned = layer.self_attention.queries_bhtd
    close(turned[:, :, 0], unturned[:, :, 0])  # at position 0, the angle is 0
    assert not torch.allclose(turned[:, :, 1], unturned[:, :, 1], atol=1e-3)
    close(turned.norm(dim=-1), unturned.norm(dim=-1))
    gate, inner = network.gate_and_inner(layer.self_attention_residual.output_btm).chunk(2, -1)
    close(layer.feed_forward.inner_btf, torch.nn.functional.silu(gate) * inner)


@NORMS
def test_each_traced_stage_follows_from_the_previous_one(build, pair, norm):
    """Apply the paper's formulas to traced numbers; padding and the future get no weight."""
    source, target_input = pair
    model = build(norm=norm).eval()
    randomise_vectors(model)
    traced = trace(model, source, target_input)

    for side, stack, embedding in (
        (traced.encoder, model.encoder, model.target_embedding),
        (traced.decoder, model.decoder, model.target_embedding),
    ):
        scaled = embedding.weight[side.ids_bt] * math.sqrt(model.config.width)
        close(side.embedding.scaled_btm, scaled)
        length = side.ids_bt.shape[1]
        close(side.embedding.positions_tm, model.positions(0, length))
        x = side.embedding.sum_btm
        close(x, scaled + model.positions(0, length))
        for layer, module in zip(side.layers, stack.layers, strict=True):
            names = [field.name for field in dataclasses.fields(layer)]
            for name, residual_name in zip(names[::2], names[1::2], strict=True):
                sublayer, residual = getattr(layer, name), getattr(layer, residual_name)
                norm_module = getattr(module, f"{name}_norm")
                assert torch.equal(residual.input_btm, x)
                close(residual.sum_btm, x + sublayer.output_btm)
                before = x if norm == "pre" else residual.sum_btm
                close(residual.normed_btm, norm_module(before))
                x = residual.sum_btm if norm == "pre" else residual.normed_btm
                assert torch.equal(residual.output_btm, x)
                weights = getattr(module, name)
                if name == "feed_forward":
                    entering = residual.normed_btm if norm == "pre" else residual.input_btm
                    close(sublayer.inner_btf, weights.inner(entering).relu())
                    close(sublayer.output_btm, weights.outer(sublayer.inner_btf))
                else:
                    joined = sublayer.mix_bhtd.transpose(1, 2).flatten(2)
                    close(sublayer.output_btm, weights.output(joined))
                    scores = sublayer.queries_bhtd @ sublayer.keys_bhsd.transpose(-1, -2)
                    visible = sublayer.scores_bhts.isfinite()
                    expected = scores / math.sqrt(model.config.head_width)
                    close(sublayer.scores_bhts[visible], expected[visible])
        close(side.output_btm, stack.last_norm(x))

    padded = (source == 0)[:, None, None, :]
    for layer in traced.encoder.layers:
        assert not (layer.self_attention.weights_bhts * padded).any()
    for layer in traced.decoder.layers:
        assert not (layer.cross_attention.weights_bhts * padded).any()
        assert not layer.self_attention.weights_bhts.triu(1).any()
        assert layer.self_attention.scores_bhts.triu(1).isinf().any()


@NORMS
def test_the_trace_of_a_sentence_is_the_same_alone_and_in_a_batch(build, pair, norm):
    source, target_input = pair
    model = build(norm=norm).eval()
    together = trace(model, source, target_input)
    alone = trace(model, source[1:, :4], target_input[1:])
    close(together.probabilities_btv[1:], alone.probabilities_btv)
    for ours, theirs in zip(attentions(together), attentions(alone), strict=True):
        t, s = theirs.weights_bhts.shape[2:]
        close(ours.weights_bhts[1:, :, :t, :s], theirs.weights_bhts)


@NORMS
@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_row_t_of_a_traced_pass_equals_decoding_step_t(build, sentences, norm, search):
    """Compare with `decode_step` and its cache, piece by piece, for a hypothesis of the search."""
    model = build(norm=norm, seed=2).eval()
    randomise_vectors(model)
    source = sentences([6])
    decoding = DecodingConfig(beam_size=3, max_extra_length=4)
    if search == "greedy":
        (found,) = greedy_search(model, source, decoding)
    else:
        found = beam_search(model, source, decoding)[0][1]
    assert len(found.ids) >= 3
    target_input = torch.tensor([[model.vocabulary.bos_id, *found.ids]])
    traced = trace(model, source, target_input)

    with torch.no_grad():
        memories = model.decoder.project_memory(model.encode(source))
        caches = [KeyValueCache(1) for _ in memories]
        mask = model.source_mask(source)
        for t, newest in enumerate(target_input[0]):
            past = additive_mask(torch.arange(capacity_for(t + 1)) <= t)
            hidden = model.decode_step(newest.view(1, 1), memories, mask, past, caches)
            close(traced.decoder.output_btm[:, t : t + 1], hidden)
            close(traced.logits_btv[:, t : t + 1], model.logits(hidden))
    ends = [*found.ids, model.vocabulary.eos_id]
    score = traced.probabilities_btv[0, torch.arange(len(ends)), ends].log().sum().item()
    score /= length_penalty(len(ends), decoding.length_penalty)
    assert found.score == pytest.approx(score, abs=1e-4)


def test_both_backends_have_the_same_trace(build, pair):
    first, second = (build().eval() for _ in range(2))
    for module in second.modules():
        if hasattr(module, "backend"):
            module.backend = AttentionBackend.MATMUL
    theirs = list(tensors_of(trace(second, *pair)))
    ours = list(tensors_of(trace(first, *pair)))
    assert len(ours) == len(theirs) > 50
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def hooks_of(model: Transformer) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_a_trace_removes_its_hooks_even_after_an_error(model, pair, monkeypatch):
    own = model.encoder.register_forward_hook(lambda *_: None)
    trace(model, *pair)
    assert hooks_of(model) == 1

    def fail(_):
        assert hooks_of(model) > 10
        raise RuntimeError("on the way")

    monkeypatch.setattr(model.decoder.layers[1].feed_forward, "forward", fail)
    with pytest.raises(RuntimeError, match="on the way"):
        trace(model, *pair)
    assert hooks_of(model) == 1
    own.remove()


def test_tensors_of_a_trace_require_no_gradients(model, pair):
    assert not any(tensor.requires_grad for tensor in tensors_of(trace(model, *pair)))


def test_parameter_names_do_not_contain_modules_made_for_hooks(model):
    """Checkpoints name parameters, so the names must stay as before these modules existed."""
    layer = {
        name.removeprefix("decoder.layers.0.").rpartition(".")[0]
        for name in model.state_dict()
        if name.startswith("decoder.layers.0.")
    }
    assert layer == {
        "self_attention.query_key_value",
        "self_attention.output",
        "self_attention_norm",
        "cross_attention.query",
        "cross_attention.key_value",
        "cross_attention.output",
        "cross_attention_norm",
        "feed_forward.inner",
        "feed_forward.outer",
        "feed_forward_norm",
    }


def test_source_and_target_of_different_shapes_are_refused(model, pair):
    source, target_input = pair
    with pytest.raises(ModelError, match=r"\(2, 7\) and \(1, 8\)"):
        trace(model, source, target_input[:1])
    with pytest.raises(ModelError, match=r"\(7,\) and \(2, 8\)"):
        trace(model, source[0], target_input)
    with pytest.raises(ModelError, match="only padding"):
        trace(model, torch.zeros_like(source), target_input)
    with pytest.raises(ModelError):
        trace(model.train(), source, target_input)
