"""The decoder-only network; test_language_model.py compares it with those of Hugging Face."""

import pytest
import torch
from support.gradients import (
    assert_bf16_is_near_fp32,
    assert_bf16_on_a_gpu_is_near_fp32_on_a_cpu,
    assert_checkpointing_keeps_bits,
    assert_close_passes,
    assert_dropout_of_a_half,
    loss_and_gradients,
    on_a_gpu,
)
from support.host_reads import host_reads
from torch import nn
from torch.nn import functional as F

from model.blocks.packing import packing_of_parts
from model.blocks.positions import sinusoidal_table
from model.config.decoder_only import DecoderOnlyConfig
from model.config.transformer import AttentionBackend
from model.errors import ModelError
from model.losses.loss import CrossEntropy
from model.networks.decoder_only import DecoderOnly

PIECES, CONTEXT = 30, 24
FORMS = {
    "gpt2": {"preset": "gpt2"},
    "llama": {"preset": "llama", "key_value_heads": 2},
    "sinusoidal": {"positions": "sinusoidal", "activation": "gelu", "bias": False},
}
BACKENDS = [None, AttentionBackend.SDPA, AttentionBackend.VARLEN]
# Lengths of the parts of each row: some rows are full and some padded; one part has a single token.
ROWS = [[5, 1, 9], [15], [2, 3, 4, 1, 2], [7, 7]]
TARGETS = sum(map(sum, ROWS))

every_form = pytest.mark.parametrize("form", FORMS)


def batch(rows=ROWS, width=0, seed=3):
    """Return random ids, the ids to predict, and the number of each token's part."""
    width = max(width, *map(sum, rows))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    target, part = torch.zeros_like(ids), torch.full_like(ids, -1)
    for row, lengths in enumerate(rows):
        n = sum(lengths)
        ids[row, :n], target[row, :n] = torch.randint(4, PIECES, (2, n), generator=generator)
        numbers = [number for number, length in enumerate(lengths) for _ in range(length)]
        part[row, :n] = torch.tensor(numbers)
    return ids, target, part


def parts_alone(ids, target, part):
    """Return each part as a separate batch."""
    for row in range(len(ids)):
        for number in range(int(part[row].max()) + 1):
            here = part[row] == number
            piece = [x[row, here].unsqueeze(0) for x in (ids, target)]
            yield *piece, torch.zeros_like(piece[0])


@every_form
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_of_parts_has_the_loss_and_gradients_of_its_parts(build_decoder_only, form, backend):
    network = build_decoder_only(backend=backend, **FORMS[form])
    alone = build_decoder_only(**FORMS[form])
    found = loss_and_gradients(network, batch())
    assert_close_passes(found, loss_and_gradients(alone, *parts_alone(*batch())))
    assert all(gradient.any() for gradient in found[1].values())


@every_form
def test_the_loss_equals_the_cross_entropy_of_the_logits(build_decoder_only, form):
    network, (ids, target, part) = build_decoder_only(**FORMS[form]), batch()
    logits = network.logits(network.hidden(ids, part))
    real = part >= 0
    expected = F.cross_entropy(logits[real], target[real], reduction="sum")
    found = network(ids, target, part, CrossEntropy())
    torch.testing.assert_close(found.smoothed, expected, rtol=1e-6, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(network.logits(network.hidden(ids, part)), logits)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_loss_function_gets_only_real_tokens_in_the_order_of_rows(build_decoder_only, backend):
    network, (ids, target, part) = build_decoder_only(backend=backend), batch()
    given = []
    network(ids, target, part, lambda *inputs: given.extend(inputs))
    hidden_nd, weight, target_n = given
    torch.testing.assert_close(hidden_nd, network.hidden(ids, part)[part >= 0], rtol=0, atol=1e-5)
    assert target_n.tolist() == target[part >= 0].tolist()
    assert weight is network.output_weight


@every_form
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [ROWS, [[15], [3]]])
def test_padding_does_not_change_loss_and_gradients(build_decoder_only, form, backend, rows):
    network = build_decoder_only(backend=backend, **FORMS[form])
    expected = loss_and_gradients(network, batch(rows))
    ids, target, part = batch(rows, width=30)  # wider than the number of learned positions
    assert_close_passes(loss_and_gradients(network, (ids, target, part)), expected)
    ids[part < 0], target[part < 0] = 17, 23
    assert_close_passes(loss_and_gradients(network, (ids, target, part)), expected)


@every_form
@pytest.mark.parametrize("rows", [ROWS, [[15], [15]]])
def test_a_token_changes_only_itself_and_later_tokens_of_its_part(build_decoder_only, form, rows):
    network = build_decoder_only(**FORMS[form]).eval()
    ids, _, part = batch(rows)
    place = 8  # in the first row, in the middle of a part
    changed = ids.clone()
    changed[0, place] = (ids[0, place] - 4 + 1) % (PIECES - 4) + 4
    with torch.no_grad():
        differs = (network.hidden(ids, part) - network.hidden(changed, part)).abs().amax(-1) > 1e-4
    after = torch.arange(ids.shape[1]) >= place
    assert torch.equal(differs[0], after & (part[0] == part[0, place]))
    assert not differs[1:].any()


@every_form
def test_swapping_earlier_tokens_changes_the_last_state(build_decoder_only, form):
    network = build_decoder_only(**FORMS[form]).eval()
    ids, _, part = batch([[9]])
    swapped = ids.clone()
    swapped[0, [1, 5]] = ids[0, [5, 1]]
    with torch.no_grad():
        last, other = network.hidden(ids, part)[0, -1], network.hidden(swapped, part)[0, -1]
    assert (last - other).abs().max() > 1e-2


def test_sinusoidal_positions_scale_embeddings_as_in_the_paper(build_decoder_only):
    network = build_decoder_only(positions="sinusoidal")
    ids, _, part = batch([[4, 3]])
    seen = []
    network.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.hidden(ids, part)
    places = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    expected = network.embedding.weight[ids] * 32**0.5 + sinusoidal_table(7, 32)[places]
    torch.testing.assert_close(seen[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_embeddings_are_not_scaled_with_other_positions(build_decoder_only, positions):
    network = build_decoder_only(positions=positions)
    ids, _, part = batch([[4]])
    seen = []
    network.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.hidden(ids, part)
    expected = network.embedding.weight[ids]
    if positions == "learned":
        expected = expected + network.positions.weight[:4]
    torch.testing.assert_close(seen[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_longer_than_the_learned_positions_are_refused(build_decoder_only, backend):
    network = build_decoder_only(backend=backend)
    network(*batch([[CONTEXT, CONTEXT]]), CrossEntropy())  # positions start at 0 in each part
    with pytest.raises(ModelError, match=r"has 25 tokens.*learned 24 positions.*rotary"):
        network(*batch([[3, CONTEXT + 1]]), CrossEntropy())
    with pytest.raises(ModelError, match="has 25 tokens"):
        network(*batch([[CONTEXT + 1]]), CrossEntropy())
    longer = build_decoder_only(backend=backend, positions="rotary")
    assert longer(*batch([[300]]), CrossEntropy()).nll.isfinite()


def test_a_pass_waits_for_the_device_once_or_not_with_a_packing(build_decoder_only, monkeypatch):
    for backend in (None, AttentionBackend.VARLEN):
        network = build_decoder_only(backend=backend, preset="llama")
        given, known = (*batch(), CrossEntropy()), [packing_of_parts(batch()[2])]
        assert host_reads(monkeypatch, network, *given) == ["packing_of_parts"]
        assert host_reads(monkeypatch, network, *given, known) == []


def test_rows_of_one_part_need_no_mask_and_others_one_mask_for_all_layers(build_decoder_only):
    network = build_decoder_only()
    masks = []
    for layer in network.layers:
        layer.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[1]))
    network(*batch([[5], [9]]), CrossEntropy())
    assert masks == [None, None]
    masks.clear()
    network(*batch(), CrossEntropy())
    assert masks[0] is masks[1]
    assert masks[0].shape == (len(ROWS), 1, 15, 15)


def test_packed_modules_compute_only_real_tokens(build_decoder_only):
    network = build_decoder_only(backend=AttentionBackend.VARLEN, preset="gpt2")
    rows = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: rows.update({name: output.shape[:-1]})
            )
    network(*batch(), CrossEntropy())
    assert len(rows) == 13
    assert set(rows.values()) == {(1, TARGETS)}


@every_form
@pytest.mark.parametrize("backend", BACKENDS)
def test_checkpointed_activations_have_the_same_bits(build_decoder_only, form, backend):
    network = build_decoder_only(backend=backend, dropout=0.3, **FORMS[form])
    assert_checkpointing_keeps_bits(network, network.layers[0], batch())


def test_dropout_follows_the_seed_and_acts_only_in_training(build_decoder_only):
    network = build_decoder_only(dropout=0.3, attention_dropout=0.2)

    def loss(seed):
        torch.manual_seed(seed)
        return network(*batch(), CrossEntropy()).nll

    assert torch.equal(loss(1), loss(1))
    assert not torch.equal(loss(1), loss(2))
    network.eval()
    assert torch.equal(loss(1), loss(2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_acts_on_embeddings_and_on_each_sublayer(build_decoder_only, backend):
    network = build_decoder_only(backend=backend, dropout=0.5)
    assert_dropout_of_a_half(network, batch(), 1 + 2 * len(network.layers))


@every_form
@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_stays_near_fp32(build_decoder_only, form, backend):
    assert_bf16_is_near_fp32(
        build_decoder_only(backend=backend, spread=2.0, **FORMS[form]), batch()
    )


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_are_the_output_matrix(build_decoder_only, tied):
    network = build_decoder_only(tie_embeddings=tied)
    assert (network.output_weight is network.embedding.weight) == tied
    assert (network.width, network.context_length) == (32, CONTEXT)


@every_form
@torch.no_grad()
def test_steps_with_a_cache_equal_a_pass_over_the_whole_text(build_decoder_only, form):
    network = build_decoder_only(**FORMS[form]).eval()
    ids, _, part = batch([[20], [20], [20]])
    expected = network.hidden(ids, part)
    lengths, caches = torch.tensor([4, 11, 1]), network.empty_caches()
    row = torch.arange(3)
    found = network.prefill(ids[:, :11], lengths, caches)
    torch.testing.assert_close(found, expected[row, lengths - 1], rtol=0, atol=1e-4)
    for more in range(9):
        places = lengths + more
        longest = int(places.max()) + 1
        found = network.step(ids[row, places], places, longest, caches)
        torch.testing.assert_close(found, expected[row, places], rtol=0, atol=1e-4)


def test_attention_dropout_with_varlen_is_refused(build_decoder_only):
    with pytest.raises(ModelError, match=r"varlen and model.attention_dropout is 0.1"):
        build_decoder_only(backend=AttentionBackend.VARLEN, attention_dropout=0.1)


@pytest.mark.parametrize("pad", [-1, PIECES])
def test_the_padding_id_must_be_in_the_vocabulary(pad):
    with pytest.raises(ModelError, match=f"id is {pad}.*below {PIECES}"):
        DecoderOnly(DecoderOnlyConfig(layers=1, width=8, heads=2), PIECES, pad, CONTEXT)


@on_a_gpu
@every_form
@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_on_a_gpu_is_near_fp32_on_a_cpu(build_decoder_only, form, backend):
    assert_bf16_on_a_gpu_is_near_fp32_on_a_cpu(
        lambda: build_decoder_only(backend=backend, spread=2.0, **FORMS[form]), batch()
    )


@on_a_gpu
@torch.no_grad()
def test_cached_steps_on_a_gpu_equal_a_pass_over_the_whole_text(build_decoder_only):
    network = build_decoder_only(preset="llama", key_value_heads=2).eval().cuda()
    ids, _, part = (each.cuda() for each in batch([[12], [12]]))
    expected, caches = network.hidden(ids, part), network.empty_caches()
    lengths, row = torch.tensor([5, 2]).cuda(), torch.arange(2).cuda()
    network.prefill(ids[:, :5], lengths, caches)
    for more in range(6):
        found = network.step(ids[row, lengths + more], lengths + more, 6 + more, caches)
        torch.testing.assert_close(found, expected[row, lengths + more], rtol=0, atol=1e-3)
