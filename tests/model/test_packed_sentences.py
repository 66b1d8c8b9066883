"""The loss of packed sentences, compared with that of padded ones, which other tests verify."""

import pytest
import torch
from support.host_reads import host_reads
from torch import nn

from model.blocks.packing import packings
from model.config.transformer import AttentionBackend
from model.errors import ModelError
from model.inspection.trace import trace
from model.losses.loss import CrossEntropy

PAD, EOS = 0, 3
SOURCE_LENGTHS, TARGET_LENGTHS = [9, 1, 60, 4, 1], [30, 1, 2, 1, 17]
SOURCE_TOKENS, TARGET_TOKENS = sum(SOURCE_LENGTHS), sum(TARGET_LENGTHS)


@pytest.fixture
def batch(sentences, as_input):
    """Return inputs of the network: sentences of very unequal lengths, down to one token."""
    source, target = sentences(SOURCE_LENGTHS), sentences(TARGET_LENGTHS, seed=2)
    return source, as_input(target), target


@pytest.fixture
def pair_of_models(build, randomise_vectors):
    """Return a function that builds two networks of the same weights: padded and packed."""

    def build_pair(**settings):
        models = [build(backend=backend, **settings) for backend in (None, AttentionBackend.VARLEN)]
        for model in models:
            torch.manual_seed(5)
            randomise_vectors(model)
        return models

    return build_pair


def loss_and_gradients(model, batch):
    model.zero_grad()
    sums = model(*batch, CrossEntropy(0.1))
    (sums.smoothed / TARGET_TOKENS).backward()
    return sums, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("share", ["all", "decoder", "none"])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_packed_sentences_equal_padded_ones(pair_of_models, batch, norm, share, checkpoints):
    padded, packed = pair_of_models(norm=norm, share_embeddings=share)
    packed.checkpoint_activations(checkpoints)
    expected, expected_gradients = loss_and_gradients(padded, batch)
    found, gradients = loss_and_gradients(packed, batch)
    torch.testing.assert_close(found.smoothed, expected.smoothed, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.nll, expected.nll, rtol=1e-6, atol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=0, atol=1e-5, msg=name)


def test_tokens_after_the_end_of_a_target_input_do_not_change_the_loss(pair_of_models, batch):
    """A shifted short target still has its EOS, which the trainer overwrites with padding."""
    _, packed = pair_of_models()
    source, target_input, target = batch
    assert (target_input == EOS).any()
    trainers = target_input.masked_fill(target_input == EOS, PAD)
    for first, second in zip(
        packed(*batch, CrossEntropy(0.1)),
        packed(source, trainers, target, CrossEntropy(0.1)),
        strict=True,
    ):
        assert torch.equal(first, second)


def test_packed_modules_compute_only_real_tokens(pair_of_models, batch):
    _, packed = pair_of_models()
    rows = {}
    for name, module in packed.named_modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: rows.update({name: output.shape[:-1]})
            )
    packed(*batch, CrossEntropy(0.1))
    assert len(rows) > 30
    for name, shape in rows.items():
        reads_source = name.startswith("encoder") or name.endswith("cross_attention.key_value")
        assert shape == (1, SOURCE_TOKENS if reads_source else TARGET_TOKENS), name


def test_a_pass_waits_for_the_device_once_or_not_if_the_packings_are_given(
    pair_of_models, batch, monkeypatch
):
    known = packings(batch[0] != 0, batch[2] != 0)
    for model in pair_of_models():
        given = (*batch, CrossEntropy(0.1))
        assert host_reads(monkeypatch, model, *given) == ["packings"]
        assert host_reads(monkeypatch, model, *given, known) == []


@pytest.mark.parametrize("checkpoints", [False, True])
def test_dropout_depends_on_the_seed_but_not_on_padding(build, sentences, as_input, checkpoints):
    """Random numbers are drawn only for real tokens."""
    model = build(dropout=0.3, backend=AttentionBackend.VARLEN)

    def outcome(seed, checkpoints, more=0):
        source = sentences(SOURCE_LENGTHS, max(SOURCE_LENGTHS) + more)
        target = sentences(TARGET_LENGTHS, max(TARGET_LENGTHS) + 2 * more, seed=2)
        model.checkpoint_activations(checkpoints)
        torch.manual_seed(seed)
        sums, gradients = loss_and_gradients(model, (source, as_input(target), target))
        return [sums.smoothed.detach(), *(gradient.clone() for gradient in gradients.values())]

    first = outcome(7, False)
    for again in (outcome(7, checkpoints), outcome(7, checkpoints, more=3)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], outcome(8, checkpoints)[0])


def test_bf16_stays_near_fp32(pair_of_models, batch):
    _, packed = pair_of_models()
    expected = packed(*batch, CrossEntropy(0.1)).smoothed
    found = packed.bfloat16()(*batch, CrossEntropy(0.1)).smoothed
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0)
    found.backward()


def test_a_trace_of_a_packed_network_has_the_logits_of_the_padded_one(pair_of_models, batch):
    padded, packed = (model.eval() for model in pair_of_models())
    first, second = (trace(model, *batch[:2]) for model in (padded, packed))
    assert torch.equal(first.logits_btv, second.logits_btv)


def test_attention_dropout_with_varlen_is_refused(build):
    with pytest.raises(
        ModelError,
    ):
        build(backend=AttentionBackend.VARLEN, attention_dropout=0.1)
