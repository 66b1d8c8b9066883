"""The network in BERT's layout, compared with the transformers class that reads it."""

import json

import pytest
import torch
from support.large_weights import make_weights_large
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
)

from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig, LabelTokensConfig
from model.config.transformer import AttentionBackend
from model.errors import ModelError
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.hugging_face.bert import (
    BIAS,
    TIED,
    VECTORS,
    from_bert,
    read_bert,
    to_bert,
    to_bert_encoder,
    to_bert_labels,
)
from model.hugging_face.files import read_model, write_model

PIECES, CONTEXT, PAD = 40, 24, 0
FORMS = {
    "bert": {},
    "others": {
        **{"activation": "gelu_tanh", "norm_epsilon": 1e-3, "segments": 3},
        **{"dropout": 0.2, "attention_dropout": 0.3},
    },
    "relu": {"activation": "relu", "feed_forward_width": 40, "heads": 2},
}
EACH = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def network_of(seed=0, backend=None, **settings):
    """Return one of our networks with large weights, and with vectors that are neither 0 nor 1."""
    small = {"preset": "bert", "layers": 2, "width": 32, "heads": 4, "dropout": 0.0}
    torch.manual_seed(seed)
    network = MaskedLanguageModel(
        EncoderOnlyConfig(**{**small, **settings}), PIECES, CONTEXT, backend
    )
    return make_weights_large(network, 5).eval()


def inputs(segments=2, lengths=(17, 9)):
    generator = torch.Generator().manual_seed(3)
    shape = len(lengths), max(lengths)
    ids = torch.randint(1, PIECES, shape, generator=generator)
    segment = torch.randint(segments, shape, generator=generator)
    real = torch.arange(shape[1]) < torch.tensor(lengths).unsqueeze(1)
    return ids * real, segment * real, real


def logits_of_ours(network, ids, segment, real):
    position = torch.arange(ids.shape[1]).expand_as(ids)
    hidden = network.encoder(ids, segment, position, real.long() - 1)
    return network.logits(hidden)[real]


def logits_of_theirs(network, ids, segment, real):
    asked = {"input_ids": ids, "token_type_ids": segment, "attention_mask": real.long()}
    return network(**asked).logits[real]


def same(found, expected):
    """Require equality up to a hundred-thousandth of the largest value."""
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@EACH
@torch.no_grad()
def test_an_exported_network_has_the_same_logits_and_settings(tmp_path, form):
    ours = network_of(**form)
    write_model(tmp_path, to_bert(ours, PAD))
    theirs, info = BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    batch = inputs(ours.encoder.config.segments)
    same(logits_of_theirs(theirs.eval(), *batch), logits_of_ours(ours, *batch))
    dropouts = theirs.config.hidden_dropout_prob, theirs.config.attention_probs_dropout_prob
    assert dropouts == (form.get("dropout", 0.0), form.get("attention_dropout", 0.0))
    back = from_bert(*read_model(tmp_path))
    assert {n: p.tolist() for n, p in back.named_parameters()} == {
        n: p.tolist() for n, p in ours.named_parameters()
    }
    assert back.encoder.config == ours.encoder.config


@pytest.mark.parametrize("backend", list(AttentionBackend))
@torch.no_grad()
def test_an_imported_network_has_the_same_logits(tmp_path, backend):
    torch.manual_seed(1)
    theirs = BertForMaskedLM(
        BertConfig(
            vocab_size=PIECES,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=56,
            max_position_embeddings=CONTEXT,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.2,
        )
    ).eval()
    theirs.cls.predictions.bias.normal_()
    theirs.save_pretrained(tmp_path)
    read = from_bert(*read_model(tmp_path))
    ours = MaskedLanguageModel(read.encoder.config, PIECES, CONTEXT, backend).eval()
    ours.load_state_dict(read.state_dict())
    assert (ours.encoder.config.layers, ours.encoder.context_length) == (3, CONTEXT)
    batch = inputs()
    same(logits_of_ours(ours, *batch), logits_of_theirs(theirs, *batch))


def test_logits_of_bf16_weights_are_close():
    ours = network_of()
    config, weights = to_bert(ours, PAD)
    halved = from_bert(config, {name: x.bfloat16() for name, x in weights.items()}).eval()
    assert {p.dtype for p in halved.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        exact, found = (logits_of_ours(n, *inputs()).float() for n in (ours, halved))
    assert (found - exact).abs().max() < 0.05 * exact.abs().max()


def test_additional_tensors_of_published_files_are_skipped():
    """A pooler, another head, tied matrices twice, and TensorFlow's names of norms."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = BertConfig(vocab_size=PIECES, intermediate_size=64, **sizes)
    theirs = BertForPreTraining(config)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): x
        for name, x in theirs.state_dict().items()
    }
    assert any("pooler" in name for name in old)
    assert any(name.endswith("gamma") for name in old)
    assert TIED.keys() <= old.keys()
    network = from_bert(config.to_dict(), old)
    assert torch.equal(network.encoder.embedding.weight, old[VECTORS])
    assert torch.equal(network.output_bias, old[BIAS])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"norm": "pre"}, r"model\.norm is pre"), ({"segments": 0}, r"model\.segments is 0")],
)
def test_settings_that_bert_lacks_are_refused_by_name(settings, message):
    with pytest.raises(ModelError, match=message):
        to_bert(network_of(**settings), PAD)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "model_type of the config is 'roberta'.*'bert'"),
        ({"hidden_act": "tanh"}, "hidden_act of the config is 'tanh'"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings of the config is False"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type of the config"),
        ({"is_decoder": True}, "is_decoder of the config is True"),
        ({"num_hidden_layers": 10**9}, r"weight bert\.encoder\.layer\.999999999\."),
        ({"num_hidden_layers": 1}, r"belong to BERT: 16, such as bert\.encoder\.layer"),
        ({"hidden_size": 64}, r"word_embeddings.* shape \(40, 32\) .* 40 vectors of 64"),
        ({"vocab_size": 2**31}, "vocab_size of the config is 2147483648"),
        ({"num_attention_heads": 5}, "does not describe a network that can be built"),
        ({"max_position_embeddings": 25}, r"position_embeddings.* shape \(24, 32\).*\(25, 32\)"),
        ({"intermediate_size": None}, "intermediate_size of the config is None"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused(changes, message):
    config, weights = to_bert(network_of(), PAD)
    with pytest.raises(ModelError, match=message):
        from_bert(config | changes, weights)


def test_missing_additional_differing_and_integer_weights_are_refused():
    config, weights = to_bert(network_of(), PAD)
    with pytest.raises(ModelError):
        from_bert(config, weights | {"classifier.weight": torch.zeros(2, 32)})
    without = {name: x for name, x in weights.items() if name != BIAS}
    with pytest.raises(ModelError, match=r"weight cls\.predictions\.bias"):
        from_bert(config, without)
    other = {"cls.predictions.decoder.weight": weights[VECTORS] + 1}
    with pytest.raises(ModelError, match=r"decoder\.weight and .* must be equal, but they differ"):
        from_bert(config, weights | other)
    with pytest.raises(ModelError, match=r"in torch\.int64"):
        from_bert(config, weights | {VECTORS: weights[VECTORS].long()})


def sentence_classifier():
    config = LabelTextsConfig(preset="bert", layers=1, width=16, heads=2)
    return LabelModel(config, PIECES, CONTEXT, labels=3)


def token_classifier():
    config = LabelTokensConfig(preset="bert", layers=1, width=16, heads=2)
    return LabelModel(config, PIECES, CONTEXT, labels=3)


@pytest.mark.parametrize("build", [sentence_classifier, token_classifier])
def test_a_classifier_is_read_with_its_labels(build):
    network = build()
    found = read_bert(*to_bert_labels(network, PAD, ["no", "b", "c"]))
    assert found.labels == ("no", "b", "c")
    assert (found.vocabulary_size, found.context_length) == (PIECES, CONTEXT)
    parameters = dict(network.named_parameters())
    assert found.weights.keys() == parameters.keys()
    assert all(torch.equal(found.weights[name], x) for name, x in parameters.items())


def test_an_encoder_without_a_head_is_read():
    network = network_of()
    found = read_bert(*to_bert_encoder(network.encoder, PAD))
    ours = {f"encoder.{name}": x for name, x in network.encoder.named_parameters()}
    assert found.weights.keys() == ours.keys()
    assert all(torch.equal(found.weights[name], x) for name, x in ours.items())
    assert found.labels == ()
    assert found.config == network.encoder.config


def test_a_masked_model_is_read_with_its_head():
    network = network_of()
    found = read_bert(*to_bert(network, PAD))
    assert found.weights.keys() == dict(network.named_parameters()).keys()


def test_a_classifier_saved_by_transformers_is_read():
    config = BertConfig(
        vocab_size=PIECES, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=4
    )
    theirs = BertForSequenceClassification(config)
    found = read_bert(json.loads(theirs.config.to_json_string()), theirs.state_dict())
    assert found.labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")
    assert torch.equal(found.weights["classifier.weight"], theirs.classifier.weight)
    assert torch.equal(found.weights["pooler.bias"], theirs.bert.pooler.dense.bias)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("classifier.bias"), r"classifier\.bias is missing"),
        (
            lambda w: w.update({"bert.pooler.dense.bias": torch.zeros(5)}),
            r"pooler\.dense\.bias has",
        ),
        (
            lambda w: w.update({"qa_outputs.weight": torch.zeros(2, 16)}),
            r"such as qa_outputs\.weig",
        ),
    ],
)
def test_a_classifier_with_wrong_tensors_is_refused(change, message):
    config, weights = to_bert_labels(sentence_classifier(), PAD, ["a", "b", "c"])
    change(weights)
    with pytest.raises(ModelError, match=message):
        read_bert(config, weights)
