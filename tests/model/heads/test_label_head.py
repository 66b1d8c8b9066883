"""Heads that predict labels, compared with Hugging Face's BERT."""

import pytest
import torch
from support.berts import bert_config, copied_weights
from support.large_weights import make_weights_large
from torch.nn import functional as F
from transformers import BertForSequenceClassification, BertForTokenClassification

from model.blocks.dropout import Dropout
from model.config.encoder_only import LabelTextsConfig, LabelTokensConfig
from model.config.transformer import AttentionBackend
from model.heads.label_head import LabelModel, label_predictions
from model.losses.loss import CrossEntropy

PIECES, CONTEXT, LABELS = 30, 24, 5
BACKENDS = [None, *AttentionBackend]
KINDS = {
    LabelTextsConfig: BertForSequenceClassification,
    LabelTokensConfig: BertForTokenClassification,
}
every_kind = pytest.mark.parametrize("kind", KINDS, ids=["texts", "tokens"])
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def network_of(kind, backend=None, **settings):
    """Return a small network with large weights."""
    small = {"preset": "bert", "layers": 2, "width": 32, "heads": 4, "dropout": 0.0, **settings}
    torch.manual_seed(0)
    network = LabelModel(kind(**small), PIECES, CONTEXT, LABELS, backend)
    return make_weights_large(network, 5)


def batch(lengths=(12, 3, 7)):
    """Return a batch with a text per row: ids, segments, positions, parts."""
    generator = torch.Generator().manual_seed(3)
    shape = len(lengths), max(lengths)
    real = torch.arange(shape[1]) < torch.tensor(lengths).unsqueeze(1)
    ids = torch.randint(1, PIECES, shape, generator=generator) * real
    segment = torch.randint(2, shape, generator=generator) * real
    return ids, segment, torch.arange(shape[1]).expand(shape) * real, real.long() - 1


def places(kind, part):
    """Return the positions of labels: a text's first token, or every other token."""
    first = torch.zeros_like(part, dtype=torch.bool)
    first[:, :: part.shape[1] if kind is LabelTextsConfig else 2] = True
    return (first & (part >= 0)).flatten().nonzero().squeeze(1)


def theirs_of(ours, kind):
    """Return Hugging Face's network with our weights."""
    config = ours.encoder.config
    theirs = KINDS[kind](bert_config(config, PIECES, CONTEXT, num_labels=LABELS)).eval()
    others = {"pooler": "bert.pooler.dense", "classifier": "classifier"}
    copied_weights(ours, theirs, config.layers, others)
    return theirs


@every_kind
@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_logits_equal_those_of_bert(kind, backend, dtype):
    ours = network_of(kind, backend).to(dtype).eval()
    theirs = theirs_of(ours, kind).to(dtype)
    ids, segment, position, part = batch()
    asked = {"input_ids": ids, "token_type_ids": segment, "attention_mask": (part >= 0).long()}
    with torch.no_grad():
        expected = theirs(**asked).logits.float()
        hidden = ours.encoder(ids, segment, position, part).flatten(0, 1)
        found = ours.logits(hidden[places(kind, part)]).float()
    if kind is LabelTokensConfig:
        expected = expected.flatten(0, 1)[places(kind, part)]
    assert expected.std() > 0.3  # predictions differ between texts
    tolerance = 1e-5 if dtype is torch.float32 else 4e-2
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@every_kind
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_equal_those_of_bert_and_torch(kind, smoothing):
    ours = network_of(kind)
    theirs = theirs_of(ours, kind)
    ids, segment, position, part = batch()
    place = places(kind, part)
    target = place % LABELS
    loss = ours(ids, segment, position, part, place, target, CrossEntropy(smoothing)).smoothed
    asked = {"input_ids": ids, "token_type_ids": segment, "attention_mask": (part >= 0).long()}
    logits = theirs(**asked).logits
    logits = logits if kind is LabelTextsConfig else logits.flatten(0, 1)[place]
    expected = F.cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    named = dict(theirs.named_parameters())
    for mine, other in (
        ("classifier.weight", "classifier.weight"),
        ("classifier.bias", "classifier.bias"),
        ("encoder.embedding.weight", "bert.embeddings.word_embeddings.weight"),
        *([("pooler.weight", "bert.pooler.dense.weight")] if ours.pooler is not None else []),
    ):
        wanted = named[other].grad
        atol = 3e-5 * wanted.abs().max().item()
        torch.testing.assert_close(ours.get_parameter(mine).grad, wanted, rtol=0, atol=atol)


@every_kind
def test_label_predictions_are_derived_from_the_logits(kind):
    network = network_of(kind).eval()
    *fed, part = batch()
    place = places(kind, part)
    target = (place + 1) % LABELS
    guesses = network(*fed, part, place, target, label_predictions)
    logits = network.logits(network.encoder(*fed, part)).flatten(0, 1)[place]
    expected = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(guesses.nll_m, expected, rtol=1e-5, atol=1e-5)
    assert guesses.best_m.tolist() == logits.argmax(-1).tolist()


@every_kind
def test_a_batch_without_labels_has_a_loss_of_zero_and_zero_gradients(kind):
    network = network_of(kind)
    *fed, part = batch()
    nothing = torch.empty(0, dtype=torch.int64)
    sums = network(*fed, part, nothing, nothing, CrossEntropy(0.1))
    assert (sums.smoothed.item(), sums.nll.item()) == (0.0, 0.0)
    sums.smoothed.backward()
    assert all(p.grad is not None and not p.grad.any() for p in network.parameters())


@every_kind
def test_dropout_acts_once_before_the_classifier(kind):
    network, kept = network_of(kind, dropout=0.5), []
    assert isinstance(network.dropout, Dropout)
    network.dropout.register_forward_hook(lambda _, x, y: kept.append((y != 0).float().mean()))
    *fed, part = batch((24,) * 6)
    place = places(kind, part)
    network(*fed, part, place, place % LABELS, CrossEntropy())
    assert len(kept) == 1
    assert 0.3 < kept[0] < 0.7
