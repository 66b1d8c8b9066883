"""Conversion of encoder–decoders to and from Hugging Face's MarianMT.

    Transformer ─▶ to_marian ─▶ config, weights
    config, weights ─▶ from_marian ─▶ Transformer

The layout is that of transformers 5.23.0. Marian's networks (Junczys-Dowmunt et al. 2018) are
post-norm. Their positions have all sines before all cosines, whereas ours alternate (Vaswani et al.
2017, §3.5). Hugging Face's class computes the positions itself, so the conversion instead permutes
the elements of all vectors of the model's width. No product, sum or norm of such vectors depends on
the order of their elements, except for rounding.

Dropout inside the feed-forward network and of whole layers matters only in training and is not
read.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model.blocks.positions import SinusoidalPositions, sinusoidal_table
from model.config.transformer import ModelConfig
from model.errors import ModelError
from model.hugging_face.weight_mapping import (
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
from model.networks.transformer import Transformer, Vocabulary

ARCHITECTURE = "MarianMTModel"
MAX_POSITIONS = 512  # as in Marian's published models
NORM_EPSILON = 1e-5  # fixed in Hugging Face's class; no key of a config changes it

# Map from our names to Hugging Face's, for export.
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "swish"}
# Map from Hugging Face's names to ours, for import; two of their names denote the same function.
ACTIVATIONS_READ = {"relu": "relu", "gelu": "gelu", "swish": "silu", "silu": "silu"}
# Values that Hugging Face uses for keys that are missing in a config.
DEFAULTS = {
    "activation_function": "gelu",
    "attention_dropout": 0.0,
    "dropout": 0.1,
    "scale_embedding": False,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
}

SHARED, HEAD, BIAS = "model.shared.weight", "lm_head.weight", "final_logits_bias"
SOURCE, TARGET = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"
# Hugging Face's names of each of our matrices, by the value of `share_embeddings`. The first name
# is written; the others are its aliases.
EMBEDDINGS: Mapping[str, Mapping[str, list[str]]] = {
    "all": {"target_embedding": [SHARED, SOURCE, TARGET, HEAD]},
    "decoder": {"source_embedding": [SOURCE], "target_embedding": [TARGET, HEAD]},
    "none": {
        "source_embedding": [SOURCE],
        "target_embedding": [TARGET],
        "output_embedding": [HEAD],
    },
}
POSITIONS = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")
POSITIONS_DIFFER = 2e-3  # tolerance, larger than the error of rounding to fp16

# Map from our modules to Hugging Face's. The two numbers are the axes of weight and bias that run
# over the model's width, or None if there is no such axis.
ATTENTION = {
    "self_attention.query_key_value": ([f"self_attn.{part}_proj" for part in "qkv"], 1, None),
    "self_attention.output": (["self_attn.out_proj"], 0, 0),
    "self_attention_norm": (["self_attn_layer_norm"], 0, 0),
}
CROSS_ATTENTION = {
    "cross_attention.query": (["encoder_attn.q_proj"], 1, None),
    "cross_attention.key_value": ([f"encoder_attn.{part}_proj" for part in "kv"], 1, None),
    "cross_attention.output": (["encoder_attn.out_proj"], 0, 0),
    "cross_attention_norm": (["encoder_attn_layer_norm"], 0, 0),
}
FEED_FORWARD = {
    "feed_forward.inner": (["fc1"], 1, None),
    "feed_forward.outer": (["fc2"], 0, 0),
    "feed_forward_norm": (["final_layer_norm"], 0, 0),
}
LAYERS = {
    "encoder": ATTENTION | FEED_FORWARD,
    "decoder": ATTENTION | CROSS_ATTENTION | FEED_FORWARD,
}


def to_marian(network: Transformer, max_positions: int = MAX_POSITIONS) -> HuggingFaceModel:
    """Return a network in Marian's layout, with copied weights.

    Args:
        max_positions: maximum tokens of a source or a target; our network has no such limit.

    Raises:
        ModelError: Marian does not support the network.
    """
    _refuse_what_marian_lacks(network.config)
    weights = split_parameters(network, _places(network.config))
    bias = network.output_bias
    size, like = network.vocabulary.target_size, network.output_weight.detach()
    weights[BIAS] = (like.new_zeros(size) if bias is None else bias.detach().clone())[None]
    return HuggingFaceModel(_config_of(network, max_positions), weights)


def from_marian(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Transformer:
    """Return the network that a config and weights describe, with copies of the weights.

    The network has the device and the dtype of the token vectors in `weights`. It has an output
    bias if the weights contain one that is not all zeros. The decoder's start token becomes BOS,
    unless it is padding.

    Raises:
        ModelError: the network is of another family or architecture, or the weights do not fit it.
    """
    config = {**DEFAULTS, **config}
    theirs = dict(weights)
    _require_sizes(theirs, config)
    _drop_positions(theirs, config)
    bias = theirs.pop(BIAS, None)
    if bias is not None and not bias.any():
        bias = None
    ours = _read(config, output_bias=bias is not None)
    with torch.device("meta"):  # the weights are assigned below
        network = Transformer(ours, _vocabulary(config))
    positions = network.positions = SinusoidalPositions(ours.width)
    _drop_tied(theirs, ours)
    state = join_parameters(theirs, _places(ours), network)
    refuse_unused_weights(theirs, "Marian", f"of the class {ARCHITECTURE}")
    if bias is not None:
        shape = network.get_parameter("output_bias").shape
        state["output_bias"] = join_parameter({BIAS: bias.flatten()}, WeightLocation([BIAS]), shape)
    load_weights_like(network, state, "target_embedding.weight")
    positions.to(network.target_embedding.weight.device)
    return network


def _refuse_what_marian_lacks(config: ModelConfig) -> None:
    if config.norm != "post":
        raise ModelError(
            f"model.norm is {config.norm}, but Marian's networks are post-norm. Train with "
            "model.norm=post to export a Marian model, or export for another library."
        )
    fixed = {
        "activation": tuple(ACTIVATIONS),
        "positions": ("sinusoidal",),
        "key_value_heads": (None, config.heads),
        "norm_kind": ("layer",),
        "norm_epsilon": (NORM_EPSILON,),
    }
    for name, possible in fixed.items():
        value = getattr(config, name)
        if value not in possible:
            raise ModelError(
                f"model.{name} is {value}, but Marian's networks have "
                f"{' or '.join(str(each) for each in possible if each is not None)}. Train a "
                "network with that setting to export it, or translate with transloom."
            )


def _config_of(network: Transformer, max_positions: int) -> dict[str, Any]:
    ours, vocabulary = network.config, network.vocabulary
    sides: dict[str, Any] = {}
    for side, layers in (("encoder", ours.encoder_layers), ("decoder", ours.decoder_layers)):
        sides[f"{side}_layers"] = layers
        sides[f"{side}_ffn_dim"] = ours.feed_forward_width
        sides[f"{side}_attention_heads"] = ours.heads
        sides[f"{side}_layerdrop"] = 0.0
    return {
        **sides,
        "model_type": "marian",
        "architectures": [ARCHITECTURE],
        "is_encoder_decoder": True,
        "vocab_size": vocabulary.source_size,
        "decoder_vocab_size": vocabulary.target_size,
        "d_model": ours.width,
        "dropout": ours.dropout,
        "attention_dropout": ours.attention_dropout,
        "activation_dropout": 0.0,
        "activation_function": ACTIVATIONS[ours.activation],
        "max_position_embeddings": max_positions,
        "scale_embedding": True,
        "share_encoder_decoder_embeddings": ours.share_embeddings == "all",
        "tie_word_embeddings": ours.share_embeddings != "none",
        "dtype": str(network.output_weight.dtype).removeprefix("torch."),
        "pad_token_id": vocabulary.pad_id,
        "bos_token_id": None if vocabulary.starts_with_padding else vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
        "forced_eos_token_id": vocabulary.eos_id,
        "decoder_start_token_id": vocabulary.bos_id,
    }


def _read(config: Mapping[str, Any], *, output_bias: bool) -> ModelConfig:
    refuse_unsupported_values(
        config,
        model_type=("marian",),
        activation_function=tuple(ACTIVATIONS_READ),
        scale_embedding=(True,),
        normalize_before=(False,),
        normalize_embedding=(False,),
        add_final_layer_norm=(False,),
        quantization_config=(None,),
        decoder_ffn_dim=(count(config, "encoder_ffn_dim"),),
        decoder_attention_heads=(count(config, "encoder_attention_heads"),),
    )
    shared, tied = config["share_encoder_decoder_embeddings"], config["tie_word_embeddings"]
    if shared:  # the output must be tied, too
        refuse_unsupported_values(config, tie_word_embeddings=(True,))
    values = {
        "encoder_layers": count(config, "encoder_layers"),
        "decoder_layers": count(config, "decoder_layers"),
        "width": count(config, "d_model"),
        "feed_forward_width": count(config, "encoder_ffn_dim"),
        "heads": count(config, "encoder_attention_heads"),
        "dropout": config["dropout"],
        "attention_dropout": config["attention_dropout"],
        "share_embeddings": "all" if shared else "decoder" if tied else "none",
        "activation": ACTIVATIONS_READ[config["activation_function"]],
        "output_bias": output_bias,
        "decoder_start": "pad" if _start(config) == _token(config, "pad_token_id") else "bos",
    }
    return network_config(ModelConfig, values)


def _require_sizes(theirs: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Check the weights' width and layers against the config, before building the network."""
    for side in LAYERS:
        last = count(config, f"{side}_layers") - 1
        require_weights(theirs, [f"model.{side}.layers.{last}.fc1.weight"])
    width = count(config, "d_model")
    for name in (SHARED, SOURCE, TARGET, HEAD):
        if name not in theirs:
            continue
        shape, dtype = tuple(theirs[name].shape), theirs[name].dtype
        if shape[1:] != (width,) or not dtype.is_floating_point:
            raise ModelError(
                f"The weight {name} has the shape {shape} in {dtype}, but by the config it must be "
                f"vectors of {width} floating-point numbers. Use the config.json that belongs to "
                "the weights."
            )


def _vocabulary(config: Mapping[str, Any]) -> Vocabulary:
    source_size = count(config, "vocab_size")
    own = config.get("decoder_vocab_size") and not config["share_encoder_decoder_embeddings"]
    return Vocabulary(
        source_size=source_size,
        target_size=count(config, "decoder_vocab_size") if own else source_size,
        pad_id=_token(config, "pad_token_id"),
        bos_id=_start(config),
        eos_id=_token(config, "eos_token_id"),
    )


def _start(config: Mapping[str, Any]) -> int:
    return _token(config, "decoder_start_token_id")


def _token(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelError(
            f"{name} of the config is {value!r}, but it must be the id of one token. Set it in "
            "config.json."
        )
    return value


def _places(config: ModelConfig) -> dict[str, WeightLocation]:
    """Return the location in Hugging Face's weights of our parameters, except the output bias."""
    order = _sines_first(config.width)
    places = {
        f"{ours}.weight": WeightLocation(names[:1], reordered=1, order=order)
        for ours, names in EMBEDDINGS[config.share_embeddings].items()
    }
    for stack, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        for number in range(layers):
            for ours, (modules, *axes) in LAYERS[stack].items():
                rows = [config.width] * len(modules) if len(modules) > 1 else None
                for kind, axis in zip(("weight", "bias"), axes, strict=True):
                    names = [f"model.{stack}.layers.{number}.{name}.{kind}" for name in modules]
                    place = WeightLocation(names, rows, reordered=axis, order=order)
                    places[f"{stack}.layers.{number}.{ours}.{kind}"] = place
    return places


def _sines_first(width: int) -> Tensor:
    """Return the indices of all sines in our positions, then those of all cosines."""
    return torch.cat([torch.arange(0, width, 2), torch.arange(1, width, 2)])


def _drop_positions(theirs: dict[str, Tensor], config: Mapping[str, Any]) -> None:
    """Remove the position tables of older files, after checking that they equal ours."""
    for name in POSITIONS:
        table = theirs.pop(name, None)
        if table is None:
            continue
        if not _are_sinusoidal(table, count(config, "d_model")):
            raise ModelError(
                f"{name} contains other positions than sines and cosines (Vaswani et al. 2017, "
                "§3.5). No others are supported, so choose another network."
            )


def _are_sinusoidal(table: Tensor, width: int) -> bool:
    """Return True if positions are sines and cosines of this width, in Marian's order."""
    if table.dim() != 2 or table.shape[1] != width or width % 2 or not len(table):
        return False
    expected = sinusoidal_table(len(table), width)[:, _sines_first(width)].to(table.device)
    return bool((table - expected).abs().max() <= POSITIONS_DIFFER)  # false for NaN


def _drop_tied(theirs: dict[str, Tensor], config: ModelConfig) -> None:
    """Keep each matrix under one name; a file may have it under any of its aliases."""
    for names in EMBEDDINGS[config.share_embeddings].values():
        there = [name for name in names if name in theirs]
        if not there:
            continue  # reported when the weight is read
        matrix = theirs[there[0]]
        for name in there[1:]:
            if not torch.equal(matrix, theirs[name]):
                raise ModelError(
                    f"By the config, {name} and {there[0]} are one matrix, but they differ. Set "
                    "tie_word_embeddings and share_encoder_decoder_embeddings in config.json as "
                    "the network was trained."
                )
            del theirs[name]
        theirs[names[0]] = theirs.pop(there[0])
