"""Sentence vectors and their loss, compared with Hugging Face's BERT and torch."""

import pytest
import torch
from support.gradients import assert_checkpointing_keeps_bits
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from model.config.sentence_encoder import SentenceEncoderConfig
from model.config.transformer import AttentionBackend
from model.errors import ModelError
from model.heads.masked_head import label_loss_sums
from model.heads.sentence_encoder import SentenceEncoder
from model.hugging_face.bert import to_bert_encoder
from model.losses.loss import CrossEntropy, token_losses

PIECES, CONTEXT, PAD = 30, 16, 0
LENGTHS = [5, 9, 2, 7, 8, 3, 9, 4]  # of four sources and of their targets
BACKENDS = [None, *AttentionBackend]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_pooling = pytest.mark.parametrize("pooling", ["mean", "first"])


@pytest.fixture(scope="session")
def build_encoder(build_masked):
    """Return a function that builds a small network with a masked model's encoder weights."""

    def build(backend=None, pooling="mean", temperature=0.5, dropout=0.0):
        config = SentenceEncoderConfig(
            preset="bert", layers=2, width=32, heads=4, feed_forward_width=48,
            pooling=pooling, temperature=temperature, dropout=dropout,
        )  # fmt: skip
        network = SentenceEncoder(config, PIECES, CONTEXT, backend)
        masked = build_masked(preset="bert", context_length=CONTEXT, spread=4.0)
        network.encoder.load_state_dict(masked.encoder.state_dict())
        return network

    return build


def batch(lengths=LENGTHS, width=0, seed=3):
    """Return a batch with a sentence per row: ids, segments, positions and parts."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(lengths), max(width, *lengths)
    ids, part = torch.full(shape, PAD), torch.full(shape, -1)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, PIECES, (length,), generator=generator)
        part[row, :length] = 0
    position = torch.arange(shape[1]).expand(shape).clone()
    position[part < 0] = 0
    return ids, torch.zeros_like(ids), position, part


def theirs_of(ours):
    found = to_bert_encoder(ours.encoder, PAD)
    config = BertConfig(**found.config, attn_implementation="eager")
    theirs = BertModel(config, add_pooling_layer=False).train(ours.training)
    theirs.load_state_dict(found.weights)
    return theirs


def their_vectors(theirs, pooling, ids, segment, position, part):
    """Return BERT's vectors, pooled as sentence-transformers does."""
    real = (part >= 0).long()
    hidden = theirs(
        input_ids=ids, token_type_ids=segment, position_ids=position, attention_mask=real
    ).last_hidden_state.float()
    if pooling == "first":
        return F.normalize(hidden[:, 0])
    weights = real.unsqueeze(-1).float()
    return F.normalize((hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9))


def their_loss(vectors, temperature):
    """Return each pair's loss, as mean of both directions, and the mean number of right matches."""
    source, target = vectors.chunk(2)
    cosines = source @ target.T / temperature
    right = torch.arange(len(source))
    both = [F.cross_entropy(of, right, reduction="none") for of in (cosines, cosines.T)]
    told = [(of.argmax(1) == right).sum() for of in (cosines, cosines.T)]
    return (both[0] + both[1]) / 2, float(told[0] + told[1]) / 2


@every_backend
@every_pooling
@pytest.mark.parametrize("lengths", [LENGTHS, [7] * 8], ids=["padded", "full"])
def test_vectors_loss_and_gradients_equal_those_of_bert(build_encoder, backend, pooling, lengths):
    ours = build_encoder(backend, pooling)
    theirs = theirs_of(ours)
    inputs = batch(lengths)
    expected = their_vectors(theirs, pooling, *inputs)
    torch.testing.assert_close(ours.embed(*inputs), expected, rtol=0, atol=2e-6)
    assert (expected @ expected.T).std() > 0.02  # vectors differ between sentences
    losses, told = their_loss(expected, 0.5)
    found = ours(*inputs, CrossEntropy())
    torch.testing.assert_close(found.smoothed, losses.sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.nll, losses.sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(ours(*inputs, token_losses), losses, rtol=1e-4, atol=1e-5)
    sums = ours(*inputs, label_loss_sums)
    assert float(sums.right) == told
    assert float(sums.nll) == pytest.approx(losses.sum().item(), rel=1e-5)
    found.smoothed.backward()
    losses.sum().backward()
    gradients = to_bert_encoder(as_gradients(ours).encoder, PAD).weights
    for name, parameter in theirs.named_parameters():
        scale = max(1e-3, parameter.grad.abs().max().item())
        torch.testing.assert_close(
            gradients[name], parameter.grad, rtol=0, atol=5e-5 * scale, msg=lambda m, n=name: n + m
        )


def as_gradients(network):
    """Replace the network's weights by its gradients, so that they can be exported; return it."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.grad)
    return network


@every_backend
@every_pooling
def test_vectors_and_loss_in_bf16_are_near_fp32(build_encoder, backend, pooling):
    inputs = batch()
    exact = build_encoder(pooling=pooling)
    expected = exact.embed(*inputs)
    rounded = build_encoder(backend, pooling).bfloat16()
    vectors = rounded.embed(*inputs)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)), rtol=0, atol=1e-6)
    assert F.cosine_similarity(vectors, expected).min() > 0.995
    theirs = their_vectors(theirs_of(exact).bfloat16(), pooling, *inputs)
    assert F.cosine_similarity(vectors, theirs).min() > 0.995
    sums = rounded(*inputs, CrossEntropy())
    losses, _ = their_loss(expected, 0.5)
    assert float(sums.nll) == pytest.approx(losses.sum().item(), rel=0.05)
    sums.smoothed.backward()
    assert all(p.grad.isfinite().all() for p in rounded.parameters())


@every_backend
@every_pooling
def test_padding_and_other_sentences_do_not_change_a_vector(build_encoder, backend, pooling):
    network = build_encoder(backend, pooling)
    inputs = batch()
    vectors = network.embed(*inputs)
    ids, segment, position, part = batch(width=CONTEXT)
    ids[part < 0] = 17
    again = network.embed(ids, segment, position, part)
    torch.testing.assert_close(again, vectors, rtol=0, atol=2e-6)
    for row, length in enumerate(LENGTHS):
        alone = network.embed(*(each[row : row + 1, :length] for each in inputs))
        torch.testing.assert_close(alone[0], vectors[row], rtol=0, atol=2e-6)


def test_the_loss_divides_cosines_by_the_temperature(build_encoder):
    inputs = batch()
    vectors = build_encoder().embed(*inputs)
    for temperature in (0.05, 1.0):
        found = build_encoder(temperature=temperature)(*inputs, CrossEntropy()).nll
        expected = their_loss(vectors, temperature)[0].sum()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_a_single_pair_has_a_loss_of_zero(build_encoder):
    """Therefore the dummy batch of a rank without a slot adds no loss."""
    network = build_encoder()
    sums = network(*batch([1, 1]), CrossEntropy())
    assert float(sums.nll.detach()) == 0.0
    sums.smoothed.backward()
    assert all(p.grad.abs().max() < 1e-6 for p in network.parameters())


def test_checkpointed_activations_of_the_encoder_have_the_same_bits(build_encoder):
    network = build_encoder(dropout=0.3)
    assert_checkpointing_keeps_bits(network, network.encoder.layers[0], batch())


def test_an_encoder_that_bert_cannot_represent_is_not_exported():
    network = SentenceEncoder(SentenceEncoderConfig(layers=1, width=8, heads=1), PIECES, CONTEXT)
    with pytest.raises(ModelError):
        to_bert_encoder(network.encoder, PAD)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@every_backend
@every_pooling
def test_vectors_in_bf16_on_a_gpu_are_near_fp32_on_a_cpu(build_encoder, backend, pooling):
    expected = build_encoder(pooling=pooling).embed(*batch()).detach()
    network = build_encoder(backend, pooling).to(device="cuda", dtype=torch.bfloat16)
    inputs = [each.cuda() for each in batch()]
    found = network.embed(*inputs).detach().cpu()
    assert F.cosine_similarity(found, expected).min() > 0.99
    network(*inputs, CrossEntropy()).smoothed.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
