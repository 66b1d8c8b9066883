"""The encoder-only network, compared with Hugging Face's BERT and torch's encoder layers."""

import pytest
import torch
from support.berts import bert_config, copied_weights
from support.gradients import (
    assert_bf16_is_near_fp32,
    assert_bf16_on_a_gpu_is_near_fp32_on_a_cpu,
    assert_checkpointing_keeps_bits,
    assert_close_passes,
    assert_dropout_of_a_half,
    loss_and_gradients,
    on_a_gpu,
)
from torch import nn
from torch.nn import functional as F
from transformers import BertForMaskedLM

from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import AttentionBackend
from model.errors import ModelError
from model.heads.masked_head import MaskedLanguageModel, label_loss_sums
from model.losses.loss import MIN_CHUNK_TOKENS, CrossEntropy, token_losses

PIECES, CONTEXT, MASK = 30, 24, 4
BACKENDS = [None, *AttentionBackend]
FORMS = {
    "bert": {"preset": "bert"},
    "relu": {"preset": "bert", "activation": "relu", "norm_epsilon": 0.1},
    "pre": {},
    "tanh": {"activation": "gelu_tanh", "segments": 3},
}
# Lengths of the parts of each row: some rows are full and some padded; one part has a single token.
ROWS = [[5, 1, 9], [15], [2, 3, 4, 1, 2], [7, 7]]
every_form = pytest.mark.parametrize("form", FORMS)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def batch(rows=ROWS, width=0, seed=3, segments=2):
    """Return ids, segments, positions, parts, and the places and targets of every third token."""
    width = max(width, *map(sum, rows))
    generator = torch.Generator().manual_seed(seed)
    ids, segment, position = (torch.zeros(len(rows), width, dtype=torch.int64) for _ in range(3))
    part = torch.full_like(ids, -1)
    for row, lengths in enumerate(rows):
        n = sum(lengths)
        ids[row, :n] = torch.randint(5, PIECES, (n,), generator=generator)
        segment[row, :n] = torch.randint(segments, (n,), generator=generator)
        numbers = [number for number, length in enumerate(lengths) for _ in range(length)]
        part[row, :n] = torch.tensor(numbers)
        position[row, :n] = torch.cat([torch.arange(length) for length in lengths])
    place = (part >= 0).flatten().nonzero().squeeze(1)[::3]
    target = ids.flatten()[place]
    ids.view(-1)[place[1::2]] = MASK
    return ids, segment, position, part, place, target


def parts_alone(ids, segment, position, part, place, target):
    """Yield each part that has a token to be predicted as a separate batch."""
    told = torch.full_like(ids, -1).flatten()
    told[place] = target
    told = told.view_as(ids)
    for row in range(len(ids)):
        for number in range(int(part[row].max()) + 1):
            here = part[row] == number
            piece = [x[row, here].unsqueeze(0) for x in (ids, segment, position)]
            mine = told[row, here]
            where = (mine >= 0).nonzero().squeeze(1)
            if len(where):
                yield *piece, torch.zeros_like(piece[0]), where, mine[where]


def theirs_of(ours, pieces=PIECES):
    """Return BERT with our weights, and a function that returns its gradients by our names."""
    config = ours.encoder.config
    theirs = BertForMaskedLM(bert_config(config, pieces, CONTEXT))
    others = {
        "head.dense": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.LayerNorm",
        "output_bias": "cls.predictions.bias",
    }
    places = copied_weights(ours, theirs, config.layers, others)
    named = dict(theirs.named_parameters())
    return theirs, lambda: {
        name: torch.cat([named[each].grad for each in names]) for name, names in places.items()
    }


@pytest.mark.matrix
@every_backend
@pytest.mark.parametrize("form", ["bert", "relu"])
@pytest.mark.parametrize("rows", [[[12], [12]], [[12], [3], [7]]], ids=["full", "padded"])
def test_logits_loss_and_gradients_equal_those_of_bert(build_masked, form, backend, rows):
    ours = build_masked(backend=backend, spread=4.0, **FORMS[form])
    theirs, gradients = theirs_of(ours)
    ids, segment, position, part, place, target = batch(rows)
    hidden = ours.encoder(ids, segment, position, part)
    real = part >= 0
    labels = torch.full_like(ids, -100)
    labels.view(-1)[place] = target
    their_output = theirs(
        input_ids=ids,
        token_type_ids=segment,
        position_ids=position,
        attention_mask=real.long(),
        labels=labels,
    )
    expected = their_output.logits[real]
    tolerance = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(ours.logits(hidden)[real], expected, rtol=0, atol=tolerance)
    with torch.no_grad():
        found = ours.logits(ours.encoder(ids, segment, position, part))[real]
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    assert expected.std() > 0.3  # predictions differ between texts
    loss = ours(ids, segment, position, part, place, target, CrossEntropy()).smoothed
    torch.testing.assert_close(loss, their_output.loss * len(place), rtol=1e-5, atol=0)
    loss.backward()
    (their_output.loss * len(place)).backward()
    wanted = gradients()
    for name, parameter in ours.named_parameters():
        scale = max(1e-3, wanted[name].abs().max().item())
        torch.testing.assert_close(
            parameter.grad, wanted[name], rtol=0, atol=3e-5 * scale, msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize("form", ["pre", "tanh"])
def test_pre_norm_layers_equal_torchs_encoder_layers(build_masked, form):
    ours = build_masked(spread=4.0, **FORMS[form]).encoder.eval()
    ids, segment, position, part, *_ = batch([[12], [5]], segments=3)
    vectors = ours.embedding.weight[ids] + ours.positions.weight[position]
    if ours.segments is not None:
        vectors = vectors + ours.segments.weight[segment]
    approximate = "tanh" if form == "tanh" else "none"
    layer = nn.TransformerEncoderLayer(
        *(32, 4, 48, 0.0, lambda x: F.gelu(x, approximate=approximate)),
        batch_first=True,
        norm_first=True,
    ).train()
    with torch.no_grad():
        for mine in ours.layers:
            attention = mine.self_attention
            layer.self_attn.in_proj_weight.copy_(attention.query_key_value.weight)
            layer.self_attn.in_proj_bias.copy_(attention.query_key_value.bias)
            for theirs_part, my_part in (
                (layer.self_attn.out_proj, attention.output),
                (layer.linear1, mine.feed_forward.inner),
                (layer.linear2, mine.feed_forward.outer),
                (layer.norm1, mine.self_attention_norm),
                (layer.norm2, mine.feed_forward_norm),
            ):
                theirs_part.load_state_dict(my_part.state_dict())
            vectors = layer(vectors, src_key_padding_mask=part < 0)
        expected = ours.last_norm(vectors)[part >= 0]
        found = ours(ids, segment, position, part)[part >= 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@pytest.mark.matrix
@every_form
@every_backend
def test_a_row_of_parts_has_the_loss_and_gradients_of_its_parts(build_masked, form, backend):
    network = build_masked(backend=backend, **FORMS[form])
    found = loss_and_gradients(network, batch())
    assert_close_passes(
        found, loss_and_gradients(build_masked(**FORMS[form]), *parts_alone(*batch()))
    )
    assert all(gradient.any() for gradient in found[1].values())


@pytest.mark.matrix
@every_form
@every_backend
@pytest.mark.parametrize("rows", [ROWS, [[15], [3]]], ids=["packed", "alone"])
def test_padding_does_not_change_loss_and_gradients(build_masked, form, backend, rows):
    network = build_masked(backend=backend, **FORMS[form])
    expected = loss_and_gradients(network, batch(rows))
    ids, segment, position, part, place, target = batch(rows, width=30)  # wider than the context
    assert_close_passes(
        loss_and_gradients(network, (ids, segment, position, part, place, target)), expected
    )
    ids[part < 0], position[part < 0] = 17, 3
    assert_close_passes(
        loss_and_gradients(network, (ids, segment, position, part, place, target)), expected
    )


@every_backend
def test_a_token_changes_all_tokens_of_its_part_and_no_others(build_masked, backend):
    network = build_masked(preset="bert", backend=backend, spread=15.0).eval().encoder
    ids, segment, position, part, *_ = batch()
    changed = ids.clone()
    changed[0, 8] = (ids[0, 8] - 5 + 1) % (PIECES - 5) + 5
    with torch.no_grad():
        before, after = (network(x, segment, position, part) for x in (ids, changed))
    differs = ((before - after).abs().amax(-1) > 1e-4) & (part >= 0)
    assert torch.equal(differs[0], part[0] == part[0, 8])
    assert not differs[1:].any()


@pytest.mark.parametrize("which", [1, 2], ids=["segment", "position"])
def test_segments_and_positions_change_the_result(build_masked, which):
    network = build_masked(preset="bert").encoder
    inputs = list(batch([[9]])[:4])
    before = network(*inputs)
    inputs[which] = 1 - inputs[which].clamp(max=1)
    assert (network(*inputs) - before).abs().max() > 1e-2


@every_backend
def test_parts_longer_than_the_learned_positions_are_refused(build_masked, backend):
    network = build_masked(backend=backend)
    network(*batch([[CONTEXT, CONTEXT]]), CrossEntropy())  # positions start at 0 in each part
    with pytest.raises(ModelError, match=r"has 25 tokens.*learned 24 positions.*context_length"):
        network(*batch([[3, CONTEXT + 1]]), CrossEntropy())


def test_the_loss_gets_only_masked_tokens_in_their_order(build_masked):
    network, given = build_masked(preset="bert"), []
    ids, segment, position, part, place, target = batch()
    network(ids, segment, position, part, place, target, lambda *inputs: given.extend(inputs))
    hidden_md, weight_vd, target_m = given
    logits = network.logits(network.encoder(ids, segment, position, part)).flatten(0, 1)[place]
    torch.testing.assert_close(hidden_md @ weight_vd.T, logits, rtol=0, atol=1e-4)
    assert torch.equal(target_m, target)
    losses = network(ids, segment, position, part, place, target, token_losses)
    torch.testing.assert_close(losses, F.cross_entropy(logits, target, reduction="none"))


def test_a_batch_without_masked_tokens_has_a_loss_of_zero(build_masked):
    network = build_masked(preset="bert")
    *inputs, place, target = batch()
    sums = network(*inputs, place[:0], target[:0], CrossEntropy(0.1))
    assert (sums.smoothed.item(), sums.nll.item()) == (0.0, 0.0)
    sums.smoothed.backward()
    assert all(p.grad is not None and not p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("rows", [[[15], [15]], [[15], [9]], ROWS], ids=["full", "padded", "parts"])
def test_all_layers_share_one_mask_and_full_rows_need_none(build_masked, rows):
    network, masks = build_masked(), []
    for layer in network.encoder.layers:
        layer.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[1]))
    network(*batch(rows), CrossEntropy())
    assert masks[0] is masks[1]
    shapes = {(15, 15): None, (15, 9): (2, 1, 1, 15)}
    expected = shapes.get(tuple(map(sum, rows)), (len(rows), 1, 15, 15))
    assert (None if masks[0] is None else tuple(masks[0].shape)) == expected


@pytest.mark.matrix
@every_form
@every_backend
def test_checkpointed_activations_have_the_same_bits(build_masked, form, backend):
    network = build_masked(backend=backend, **FORMS[form], dropout=0.3)
    assert_checkpointing_keeps_bits(network, network.encoder.layers[0], batch())


@every_backend
def test_dropout_acts_on_embeddings_and_on_each_sublayer(build_masked, backend):
    assert_dropout_of_a_half(build_masked(backend=backend, dropout=0.5), batch(), 1 + 2 * 2)


@every_form
@every_backend
def test_bf16_stays_near_fp32(build_masked, form, backend):
    assert_bf16_is_near_fp32(build_masked(backend=backend, spread=2.0, **FORMS[form]), batch())


def test_initial_weights_are_distributed_as_in_bert():
    torch.manual_seed(0)
    config = EncoderOnlyConfig(preset="bert", layers=2, width=64, heads=4)
    network = MaskedLanguageModel(config, 500, CONTEXT)
    for name, parameter in network.named_parameters():
        if parameter.dim() == 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name
            assert abs(parameter.mean().item()) < 0.003
        else:
            assert set(parameter.tolist()) == {float("norm.weight" in name)}, name
    theirs_of(network, pieces=500)  # fails unless BERT has exactly these parameters


def test_attention_dropout_with_varlen_is_refused(build_masked):
    with pytest.raises(ModelError):
        build_masked(backend=AttentionBackend.VARLEN, attention_dropout=0.1)


def test_a_preset_fills_in_only_fields_that_are_not_given():
    bert = EncoderOnlyConfig(preset="bert", segments=3)
    assert (bert.norm, bert.norm_epsilon, bert.activation, bert.segments) == (
        *("post", 1e-12, "gelu", 3),
    )
    assert (bert.width, bert.inner_width, str(bert)) == (768, 3072, "12 layers, width 768")
    assert EncoderOnlyConfig(feed_forward_width=5).inner_width == 5


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"width is 30, which model\.heads = 4 does not divide"):
        EncoderOnlyConfig(width=30, heads=4)


@on_a_gpu
@every_form
@every_backend
def test_bf16_on_a_gpu_is_near_fp32_on_a_cpu(build_masked, form, backend):
    assert_bf16_on_a_gpu_is_near_fp32_on_a_cpu(
        lambda: build_masked(backend=backend, spread=2.0, **FORMS[form]), batch()
    )


def test_label_losses_computed_in_chunks_equal_torchs():
    """There are more tokens than fit into one chunk."""
    generator = torch.Generator().manual_seed(0)
    tokens = 2 * MIN_CHUNK_TOKENS + 5
    hidden = torch.randn(tokens, 8, generator=generator)
    weight = torch.randn(11, 8, generator=generator)
    target = torch.randint(0, 11, (tokens,), generator=generator)
    logits = F.linear(hidden, weight)
    sums = label_loss_sums(hidden, weight, target)
    assert int(sums.right) == int((logits.argmax(dim=1) == target).sum()) > MIN_CHUNK_TOKENS / 11
    expected = F.cross_entropy(logits.double(), target, reduction="sum").item()
    assert float(sums.nll) == pytest.approx(expected, rel=1e-6)
