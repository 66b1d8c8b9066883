"""Conversion of encoder-only networks to and from Hugging Face's BERT for masked tokens.

    MaskedLanguageModel ─▶ to_bert ─▶ config, weights
    config, weights ─▶ from_bert ─▶ MaskedLanguageModel
    config, weights of any class ─▶ read_bert ─▶ BertWeights: the encoder's, and the head's
    LabelModel ─▶ to_bert_labels ─▶ config, weights
    any network's encoder ─▶ to_bert_encoder ─▶ config, weights of BertModel

The layout is that of transformers 5.23.0. BERT (Devlin et al. 2019) is post-norm, and has learned
positions and segments. BERT's positions begin at 0 in each row, so a row of BERT corresponds to a
row with a single part here. Published files also have a pooler for the first token and a head for
"next sentence", which were trained together with the masked head. The conversion drops both.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.config.encoder_only import EncoderOnlyConfig
from model.errors import ModelError
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.hugging_face.weight_mapping import (
    ACTIVATIONS,
    ACTIVATIONS_READ,
    HuggingFaceModel,
    WeightLocation,
    count,
    join_parameter,
    join_parameters,
    load_weights_like,
    network_config,
    refuse_unsupported_values,
    refuse_unused_weights,
    require_weights,
    split_parameters,
)
from model.networks.encoder_only import EncoderOnly

ARCHITECTURE = "BertForMaskedLM"
ENCODER_ARCHITECTURE = "BertModel"
OF_THE_ENCODER = "bert."  # prefix of BertModel's names in BertForMaskedLM

# Values that Hugging Face uses for keys that are missing in a config.
DEFAULTS = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
    "tie_word_embeddings": True,
    "type_vocab_size": 2,
}

VECTORS, BIAS = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias"
# Aliases of the output matrix and of its bias.
TIED = {"cls.predictions.decoder.weight": VECTORS, "cls.predictions.decoder.bias": BIAS}
# Weights of published files that a masked language model does not use.
UNUSED = ("bert.pooler.", "cls.seq_relationship.", "bert.embeddings.position_ids")
# Names of norms in files converted from TensorFlow.
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

# Map from our modules to Hugging Face's.
EMBEDDINGS = {
    "encoder.embedding": "bert.embeddings.word_embeddings",
    "encoder.positions": "bert.embeddings.position_embeddings",
    "encoder.segments": "bert.embeddings.token_type_embeddings",
}
OUTSIDE = {"encoder.embedding_norm": ["bert.embeddings.LayerNorm"]}
HEAD = {
    "head.dense": ["cls.predictions.transform.dense"],
    "head.norm": ["cls.predictions.transform.LayerNorm"],
}
# Architecture with (True) and without (False) a pooler, which is a dense layer with tanh for the
# first token.
LABEL_ARCHITECTURES = {True: "BertForSequenceClassification", False: "BertForTokenClassification"}
LABEL_HEAD = {"pooler": "bert.pooler.dense", "classifier": "classifier"}
LAYER = {
    "self_attention.query_key_value": [
        f"attention.self.{part}" for part in ("query", "key", "value")
    ],
    "self_attention.output": ["attention.output.dense"],
    "self_attention_norm": ["attention.output.LayerNorm"],
    "feed_forward.inner": ["intermediate.dense"],
    "feed_forward.outer": ["output.dense"],
    "feed_forward_norm": ["output.LayerNorm"],
}


def to_bert(network: MaskedLanguageModel, pad_id: int) -> HuggingFaceModel:
    """Return a network in BERT's layout, with copied weights.

    Raises:
        ModelError: BERT does not support the network; the message names the setting.
    """
    _require_form(network.encoder.config)
    weights = split_parameters(network, _places(network.encoder.config))
    return HuggingFaceModel(_config_of(network.encoder, ARCHITECTURE, pad_id), weights)


def to_bert_labels(network: LabelModel, pad_id: int, labels: Sequence[str]) -> HuggingFaceModel:
    """Return a network with a label head in BERT's layout, with copied weights.

    Args:
        labels: names of the labels, in the network's order.

    Raises:
        ModelError: BERT does not support the network; the message names the setting.
    """
    assert len(labels) == network.labels
    encoder = to_bert_encoder(network.encoder, pad_id)
    weights = {OF_THE_ENCODER + name: weight for name, weight in encoder.weights.items()}
    head = {ours: [name] for ours, name in LABEL_HEAD.items() if getattr(network, ours) is not None}
    weights |= split_parameters(network, _module_places(head, network.encoder.config.width))
    config = {
        **encoder.config,
        "architectures": [LABEL_ARCHITECTURES[network.pooler is not None]],
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }
    return HuggingFaceModel(config, weights)


def to_bert_encoder(encoder: EncoderOnly, pad_id: int) -> HuggingFaceModel:
    """Return an encoder without a head in BERT's layout, with copied weights.

    Hugging Face's pooler for the first token is left out, because it is not trained here.

    Raises:
        ModelError: BERT does not support the network; the message names the setting.
    """
    _require_form(encoder.config)
    weights = split_parameters(nn.ModuleDict({"encoder": encoder}), _encoder_places(encoder.config))
    named = {name.removeprefix(OF_THE_ENCODER): weight for name, weight in weights.items()}
    return HuggingFaceModel(_config_of(encoder, ENCODER_ARCHITECTURE, pad_id), named)


def _require_form(config: EncoderOnlyConfig) -> None:
    if config.norm != "post":
        raise ModelError(
            f"model.norm is {config.norm}, but BERT's networks are post-norm. Export a network "
            "with the architecture of model.preset=bert."
        )
    if not config.segments:
        raise ModelError(
            "model.segments is 0, but BERT's networks have segments. Export a network "
            "with the architecture of model.preset=bert."
        )


def from_bert(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> MaskedLanguageModel:
    """Return the network that a config and weights describe, with copies of the weights.

    The network has the device and the dtype of the token vectors in `weights`.

    Raises:
        ModelError: the network is of another family or architecture, or the weights do not fit it.
    """
    config = {**DEFAULTS, **config}
    theirs = _with_current_names(weights)
    ours, sizes = _read(config, theirs)
    with torch.device("meta"):  # the weights are assigned below
        network = MaskedLanguageModel(ours, *sizes)
    state = join_parameters(theirs, _places(ours), network)
    refuse_unused_weights(theirs, "BERT", f"of the class {ARCHITECTURE}")
    load_weights_like(network, state, "encoder.embedding.weight")
    return network


class BertWeights(NamedTuple):
    """Weights of a BERT of any class, by our names of parameters.

    Attributes:
        weights: the encoder's weights, and the weights of a masked or label head, if any.
        labels: names of the labels of a label head; empty if there is no label head, or if it has
            no names.
    """

    config: EncoderOnlyConfig
    vocabulary_size: int
    context_length: int
    weights: dict[str, Tensor]
    labels: tuple[str, ...] = ()


def read_bert(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> BertWeights:
    """Return the usable weights of a BERT of any class, from its config and weights.

    The class may be that of a masked language model, a classifier, or the encoder alone, as in
    sentence-transformers.

    Raises:
        ModelError: the network is of another family or architecture, or the weights do not fit it.
    """
    if any(name.startswith("cls.predictions.") for name in weights):
        network = from_bert(config, weights)
        encoder = network.encoder
        sizes = encoder.vocabulary_size, encoder.context_length
        return BertWeights(encoder.config, *sizes, dict(network.named_parameters()))
    config = {**DEFAULTS, **config}
    if not any(name.startswith(OF_THE_ENCODER) for name in weights):
        weights = {OF_THE_ENCODER + name: weight for name, weight in weights.items()}
    classifier = weights.get(f"{LABEL_HEAD['classifier']}.weight")
    head = {} if classifier is None else LABEL_HEAD
    theirs = _with_current_names(weights, head.values())
    ours, sizes = _read(config, theirs)
    with torch.device("meta"):  # only the shapes are needed
        parameters = nn.ModuleDict({"encoder": EncoderOnly(ours, *sizes)}).named_parameters()
    shapes = {name: parameter.shape for name, parameter in parameters}
    places = _encoder_places(ours)
    for module, name in head.items():
        rows = ours.width if module == "pooler" else len(theirs[f"{name}.weight"])
        if f"{name}.weight" in theirs:  # a classifier of tokens has no pooler
            places |= _module_places({module: [name]}, ours.width)
            shapes |= {f"{module}.weight": torch.Size((rows, ours.width))}
            shapes |= {f"{module}.bias": torch.Size((rows,))}
    found = {name: join_parameter(theirs, place, shapes[name]) for name, place in places.items()}
    refuse_unused_weights(theirs, "BERT", "without a head, for masked tokens or for labels")
    return BertWeights(ours, *sizes, found, _labels(config) if head else ())


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the labels in the network's order; empty without valid names."""
    named = config.get("id2label")
    if not isinstance(named, Mapping):
        return ()
    labels = tuple(named.get(str(number)) for number in range(len(named)))
    return tuple(label for label in labels if isinstance(label, str))


def _config_of(encoder: EncoderOnly, architecture: str, pad_id: int) -> dict[str, Any]:
    ours = encoder.config
    return {
        "model_type": "bert",
        "architectures": [architecture],
        "vocab_size": encoder.vocabulary_size,
        "hidden_size": ours.width,
        "num_hidden_layers": ours.layers,
        "num_attention_heads": ours.heads,
        "intermediate_size": ours.inner_width,
        "hidden_act": ACTIVATIONS[ours.activation],
        "hidden_dropout_prob": ours.dropout,
        "attention_probs_dropout_prob": ours.attention_dropout,
        "max_position_embeddings": encoder.context_length,
        "type_vocab_size": ours.segments,
        "layer_norm_eps": ours.norm_epsilon,
        "tie_word_embeddings": True,
        "is_decoder": False,
        "pad_token_id": pad_id,
        "dtype": str(encoder.embedding.weight.dtype).removeprefix("torch."),
    }


def _read(
    config: Mapping[str, Any], theirs: Mapping[str, Tensor]
) -> tuple[EncoderOnlyConfig, tuple[int, int]]:
    """Return the settings that a config describes, and the sizes of vocabulary and context."""
    _require_sizes(theirs, config)
    refuse_unsupported_values(
        config,
        model_type=("bert",),
        hidden_act=tuple(ACTIVATIONS_READ),
        tie_word_embeddings=(True,),
        position_embedding_type=("absolute",),
        is_decoder=(False,),
        add_cross_attention=(False,),
        quantization_config=(None,),
    )
    values = {
        "preset": "bert",
        "layers": count(config, "num_hidden_layers"),
        "width": count(config, "hidden_size"),
        "heads": count(config, "num_attention_heads"),
        "feed_forward_width": count(config, "intermediate_size"),
        "activation": ACTIVATIONS_READ[config["hidden_act"]],
        "norm_epsilon": config["layer_norm_eps"],
        "segments": count(config, "type_vocab_size"),
        "dropout": config["hidden_dropout_prob"],
        "attention_dropout": config["attention_probs_dropout_prob"],
    }
    ours = network_config(EncoderOnlyConfig, values)
    return ours, (count(config, "vocab_size"), count(config, "max_position_embeddings"))


def _require_sizes(theirs: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Check the weights' width and layers against the config, before building the network."""
    layers, width = count(config, "num_hidden_layers"), count(config, "hidden_size")
    require_weights(theirs, [VECTORS, f"bert.encoder.layer.{layers - 1}.output.dense.weight"])
    vectors = theirs[VECTORS]
    if vectors.shape != (count(config, "vocab_size"), width) or not vectors.is_floating_point():
        raise ModelError(
            f"The weight {VECTORS} has the shape {tuple(vectors.shape)} in {vectors.dtype}, but by "
            f"the config it must be {config['vocab_size']:,} vectors of {width} floating-point "
            "numbers. Use the config.json that belongs to the weights."
        )


def _with_current_names(
    weights: Mapping[str, Tensor], used: Collection[str] = ()
) -> dict[str, Tensor]:
    """Return the weights that are used, each under its current name.

    Args:
        used: modules in `UNUSED` that are used nevertheless.

    Raises:
        ModelError: the output matrix or its bias occurs twice with different values.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.startswith(UNUSED) and name.rpartition(".")[0] not in used:
            continue
        for old, new in OLD_NAMES.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        named[name] = tensor
    for other, name in TIED.items():
        if other not in named:
            continue
        twin = named.pop(other)
        if not torch.equal(named.setdefault(name, twin), twin):
            raise ModelError(
                f"The weights {other} and {name} must be equal, but they differ: this network was "
                "trained with a separate output matrix or bias. Choose another network."
            )
    return named


def _places(config: EncoderOnlyConfig) -> dict[str, WeightLocation]:
    """Return the location, in Hugging Face's weights, of each of our parameters."""
    head = {"output_bias": WeightLocation([BIAS]), **_module_places(HEAD, config.width)}
    return _encoder_places(config) | head


def _encoder_places(config: EncoderOnlyConfig) -> dict[str, WeightLocation]:
    """Return the location, in Hugging Face's weights, of each of the encoder's parameters."""
    places = {
        f"{ours}.weight": WeightLocation([f"{name}.weight"]) for ours, name in EMBEDDINGS.items()
    }
    modules = dict(OUTSIDE)
    for number in range(config.layers):
        prefix = f"bert.encoder.layer.{number}."
        for ours, names in LAYER.items():
            modules[f"encoder.layers.{number}.{ours}"] = [prefix + name for name in names]
    return places | _module_places(modules, config.width)


def _module_places(modules: Mapping[str, list[str]], width: int) -> dict[str, WeightLocation]:
    """Return the locations of weights and biases; our module may combine several of theirs."""
    return {
        f"{ours}.{kind}": WeightLocation(
            [f"{name}.{kind}" for name in names], [width] * len(names) if len(names) > 1 else None
        )
        for ours, names in modules.items()
        for kind in ("weight", "bias")
    }
