"""The counts and shapes in a figure equal those of the network, for all settings."""

import re

import pytest
import torch

from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig, LabelTokensConfig
from model.config.sentence_encoder import SentenceEncoderConfig
from model.config.transformer import ModelConfig, NetworkConfig
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.heads.sentence_encoder import SentenceEncoder
from model.networks.decoder_only import DecoderOnly
from model.networks.transformer import Transformer, Vocabulary
from run_store.errors import RunMismatchError
from transloom.observe.explain.blueprint.networks import (
    Sizes,
    blueprint_of_network,
    blueprint_of_settings,
)

SMALL = {"width": 32, "heads": 4, "feed_forward_width": 48}
ENCODER_DECODERS = [
    ModelConfig(**SMALL, encoder_layers=3, decoder_layers=2, norm=norm, share_embeddings=sharing)
    for norm in ("post", "pre")
    for sharing in ("all", "decoder", "none")
] + [
    ModelConfig(**SMALL, share_embeddings=sharing, output_bias=True, **more)
    for sharing, more in (
        ("all", {"activation": "silu", "decoder_start": "pad"}),
        ("none", {"activation": "gelu"}),
    )
]
NEWER = [
    ModelConfig(**SMALL, positions="rotary", norm="pre", norm_kind="rms"),
    ModelConfig(**SMALL, key_value_heads=2, activation="swiglu", share_embeddings="none"),
]
DECODER_ONLY = [
    DecoderOnlyConfig(**SMALL, layers=3, preset=preset, **more)
    for preset, more in (
        ("gpt2", {}),
        ("gpt2", {"bias": False, "tie_embeddings": False}),
        ("gpt2", {"positions": "sinusoidal", "activation": "relu"}),
        ("llama", {}),
        ("llama", {"key_value_heads": 2}),
        ("llama", {"key_value_heads": 1, "bias": True, "norm_kind": "layer", "activation": "gelu"}),
        ("llama", {"positions": "learned", "tie_embeddings": True}),
    )
]
ENCODER_ONLY = [
    EncoderOnlyConfig(**SMALL, layers=3, **more)
    for more in (
        {"preset": "bert"},
        {"preset": "bert", "segments": 0, "activation": "relu"},
        {},
        {"segments": 3, "activation": "gelu_tanh"},
    )
]
SENTENCE_ENCODERS = [
    SentenceEncoderConfig(**SMALL, layers=2, preset="bert"),
    SentenceEncoderConfig(**SMALL, layers=2, pooling="first"),
]
LABELS = [
    LabelTextsConfig(**SMALL, layers=3, preset="bert"),
    LabelTokensConfig(**SMALL, layers=3, norm="pre"),
]
ALL = pytest.mark.parametrize(
    "config",
    [*ENCODER_DECODERS, *NEWER, *DECODER_ONLY, *ENCODER_ONLY, *SENTENCE_ENCODERS, *LABELS],
    ids=repr,
)


def sizes(config):
    shared = getattr(config, "share_embeddings", "all") == "all"
    return Sizes(70, 70 if shared else 50, 16, 5)


def network(config):
    torch.manual_seed(0)
    some = sizes(config)
    if isinstance(config, ModelConfig):
        bos = 0 if config.decoder_start == "pad" else 1
        return Transformer(config, Vocabulary(some.source, some.target, 0, bos, 2))
    if isinstance(config, SentenceEncoderConfig):
        return SentenceEncoder(config, some.source, some.context_length)
    if config in LABELS:
        return LabelModel(config, some.source, some.context_length, some.labels)
    if isinstance(config, EncoderOnlyConfig):
        return MaskedLanguageModel(config, some.source, some.context_length)
    return DecoderOnly(config, some.source, 0, some.context_length)


@ALL
def test_each_parameter_is_in_exactly_one_box_with_its_shape(config):
    blueprint = blueprint_of_settings(config, sizes(config))
    drawn = [(w.name, w.shape) for box in blueprint.boxes() for w in box.weights]
    there = {name: tuple(p.shape) for name, p in network(config).named_parameters()}
    assert len(drawn) == len(there)
    assert dict(drawn) == there
    assert "other" not in {box.kind for box in blueprint.boxes()}


@ALL
def test_the_parameters_of_all_boxes_sum_to_the_models_count(config):
    model = network(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    blueprint = blueprint_of_network(config, model)
    assert blueprint == blueprint_of_settings(config, sizes(config))
    assert sum(box.parameters for box in blueprint.boxes()) == blueprint.parameters == count
    for box in blueprint.boxes():
        told = [line for line in box.lines if line.endswith(" parameters") and line[0].isdigit()]
        assert told in ([], [f"{box.parameters:,} parameters"], ["0 more parameters"])
        assert box.kind != "norm" or re.match(r"gain 32(, shift 32)?$", box.lines[0])
        assert bool(box.parameters) == (told == [f"{box.parameters:,} parameters"])


@pytest.mark.parametrize("config", ENCODER_DECODERS, ids=repr)
def test_the_boxes_of_a_layer_have_the_sizes_of_the_transformer_paper(config):
    encoder, decoder = blueprint_of_settings(config, sizes(config)).columns
    width, inner = 32, 48
    attention, norm = 4 * width * width + 4 * width, 2 * width
    feed_forward = 2 * width * inner + inner + width
    for column, attentions in ((encoder, 1), (decoder, 2)):
        for layer in column.layers:
            counts = {kind: [b.parameters for b in layer.boxes if b.kind == kind] for kind in KINDS}
            assert counts == {
                "attention": [attention] * attentions,
                "feed-forward": [feed_forward],
                "norm": [norm] * (attentions + 1),
                "sum": [0] * (attentions + 1),
            }
    readers = [box.key for box in decoder.boxes() if box.reads_memory]
    assert readers == [f"decoder.{n + 1}.cross_attention" for n in range(config.decoder_layers)]
    assert not any(box.reads_memory for box in encoder.boxes())


KINDS = ("attention", "feed-forward", "norm", "sum")


@ALL
def test_norms_are_drawn_before_or_after_operations_as_in_the_network(config):
    """post: operation, sum, norm. pre: norm, operation, sum, and a last norm after the layers."""
    pre = getattr(config, "norm", "") == "pre" or isinstance(config, DecoderOnlyConfig)
    columns = blueprint_of_settings(config, sizes(config)).columns
    assert columns
    assert all(column.layers for column in columns)
    for column in columns:
        for layer in column.layers:
            kinds = [box.kind for box in layer.boxes]
            triples = {tuple(kinds[i : i + 3]) for i in range(0, len(kinds), 3)}
            for operation in ("attention", "feed-forward"):
                expected = ("norm", operation, "sum") if pre else (operation, "sum", "norm")
                assert expected in triples
            for total in (box for box in layer.boxes if box.kind == "sum"):
                (first,) = [box for box in layer.boxes if box.key == total.around]
                assert first.kind == ("norm" if pre else layer.boxes[kinds.index(first.kind)].kind)
        after = [box for box in column.after if not box.key.startswith("head.")]
        assert [box.kind for box in after].count("norm") == pre


@ALL
def test_shared_matrices_are_counted_once_and_labelled(config):
    boxes = {box.key: box for box in blueprint_of_settings(config, sizes(config)).boxes()}
    shared = {key for key, box in boxes.items() if box.same_as}
    if isinstance(config, DecoderOnlyConfig):
        assert shared == ({"decoder.output"} if config.tie_embeddings else set())
    elif isinstance(config, SentenceEncoderConfig):
        assert shared == set()
    elif isinstance(config, EncoderOnlyConfig):
        assert shared == (set() if config in LABELS else {"head.output"})
    else:
        sides = {"all": {"encoder.embedding", "decoder.output"}, "decoder": {"decoder.output"}}
        assert shared == sides.get(config.share_embeddings, set())
    for key in shared:
        has_bias = key == "head.output" or getattr(config, "output_bias", False)
        biases = 70 if key.endswith(".output") and has_bias else 0
        assert boxes[key].parameters == biases
        assert boxes[boxes[key].same_as].parameters > 0
        assert any("same matrix" in line for line in boxes[key].lines)


@pytest.mark.parametrize("config", SENTENCE_ENCODERS, ids=repr)
def test_a_sentence_encoders_figure_has_pooling_and_no_masked_lm_head(config):
    boxes = {box.key: box for box in blueprint_of_settings(config, sizes(config)).boxes()}
    assert list(boxes)[-3:] == ["pooling", "cosines", "pairs.softmax"]
    assert "head.dense" not in boxes
    assert "<mask>" not in boxes["encoder.ids"].lines[0]
    how = "mean" if config.pooling == "mean" else "the first"
    assert boxes["pooling"].lines[0].startswith(how)
    assert boxes["pooling"].lines[0].endswith("1 × 32")
    assert boxes["cosines"].lines[0].endswith("over 0.05")


def test_the_figure_describes_the_options_of_marian_networks():
    config = next(c for c in ENCODER_DECODERS if c.activation == "silu")
    boxes = {box.key: box for box in blueprint_of_settings(config, sizes(config)).boxes()}
    assert "W₁, SiLU, W₂" in boxes["encoder.1.feed_forward"].lines
    assert boxes["decoder.ids"].lines == ("t ids: <pad> and those before",)
    assert [w.name for w in boxes["decoder.output"].weights] == ["output_bias"]
    assert boxes["decoder.output"].lines[-2:] == ("biases: 70", "70 parameters")


def test_the_figure_describes_rotary_positions_rms_norms_groups_and_swiglu():
    of_rotary, of_groups = (
        {box.key: box for box in blueprint_of_settings(config, sizes(config)).boxes()}
        for config in NEWER
    )
    assert "encoder.positions" not in of_rotary
    turned = {key for key, box in of_rotary.items() if "queries, keys rotated" in str(box.lines)}
    assert turned == {key for key, box in of_rotary.items() if key.endswith(".self_attention")}
    assert of_rotary["decoder.last_norm"].title == "Last RMS norm"
    assert of_rotary["encoder.1.feed_forward_norm"].title == "RMS norm"
    assert "heads of keys, values: 2" in of_groups["decoder.1.cross_attention"].lines
    assert of_groups["decoder.1.cross_attention"].parameters == 2 * 32 * (32 + 1) + 2 * 16 * (
        32 + 1
    )
    assert "SwiGLU: (silu(xW) ⊙ xV) W₂" in of_groups["encoder.1.feed_forward"].lines


@pytest.mark.parametrize("config", ENCODER_ONLY, ids=repr)
def test_an_encoder_is_drawn_in_the_order_of_its_forward_pass(config):
    (column,) = blueprint_of_settings(config, sizes(config)).columns
    post, width, inner, pieces, context = config.norm == "post", 32, 48, 70, 16
    dense, norm = width * width + width, 2 * width
    assert [(box.key, box.parameters) for box in column.before] == [
        ("encoder.ids", 0),
        ("encoder.embedding", pieces * width),
        ("encoder.positions", context * width),
        *([("encoder.segments", config.segments * width)] if config.segments else []),
        *([("encoder.embedding_norm", norm)] if post else []),
    ]
    assert [(box.key, box.parameters) for box in column.after] == [
        *([] if post else [("encoder.last_norm", norm)]),
        ("head.dense", dense),
        ("head.norm", norm),
        ("head.output", pieces),
        ("head.softmax", 0),
    ]
    assert [layer.number for layer in column.layers] == [1, 2, 3]
    for layer in column.layers:
        counts = {kind: [b.parameters for b in layer.boxes if b.kind == kind] for kind in KINDS}
        assert counts == {
            "attention": [4 * dense],
            "feed-forward": [2 * width * inner + inner + width],
            "norm": [norm, norm],
            "sum": [0, 0],
        }


def test_the_figure_describes_the_head_of_a_masked_model():
    config = ENCODER_ONLY[0]
    boxes = {box.key: box for box in blueprint_of_settings(config, sizes(config)).boxes()}
    assert boxes["encoder.segments"].lines[0] == "one of 2 vectors, t × 32"
    assert boxes["head.dense"].lines[1:4] == ("W, GELU", "W: 32 × 32", "biases: 32")
    assert boxes["head.output"].lines == (
        "32 × 70: a logit for each piece",
        "same matrix as the embedding",
        "biases: 70",
        "70 parameters",
    )


def test_the_figure_describes_the_heads_of_classifiers():
    texts, tokens = (
        {box.key: box for box in blueprint_of_settings(config, sizes(config)).boxes()}
        for config in LABELS
    )
    assert texts["encoder.ids"].lines == ("t ids",)
    assert texts["head.pooler"].lines[:2] == ("m × 32: the first of each text", "W, tanh")
    assert texts["head.output"].lines[0] == "m × 5: a logit for each label"
    assert "head.pooler" not in tokens
    assert tokens["head.output"].lines[0].endswith("for each label, the first of each word")
    assert tokens["head.softmax"].lines == ("5 probabilities per row",)


def test_an_unknown_parameter_is_drawn_in_a_separate_box():
    config = ENCODER_DECODERS[0]
    model = network(config)
    model.extra = torch.nn.Parameter(torch.zeros(7))
    blueprint = blueprint_of_network(config, model)
    (other,) = [box for box in blueprint.boxes() if box.kind == "other"]
    assert other.lines == ("extra: 7",)
    assert sum(box.parameters for box in blueprint.boxes()) == blueprint.parameters


def test_drawing_a_network_of_an_extension_is_refused():
    with pytest.raises(RunMismatchError, match=r"'theirs', but only .* sentence_encoder have"):
        blueprint_of_settings(NetworkConfig(network="theirs"), Sizes(8, 8))
