"""Hugging Face's layouts of GPT-2 and Llama: keys of configs, names of weights.

The layouts are those of transformers 5.23.0. Each supports one architecture. Many keys of a config
do not change a network's results, and are ignored. All other keys are checked; an error names the
key of an unsupported value.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from model.config.decoder_only import DecoderOnlyConfig
from model.hugging_face.weight_mapping import (
    ACTIVATIONS,
    ACTIVATIONS_READ,
    WeightLocation,
    count,
    refuse_unsupported_values,
)
from model.networks.decoder_only import DecoderOnly

HEAD = "lm_head.weight"

GPT2_LAYER = {
    "self_attention_norm": "ln_1",
    "self_attention.query_key_value": "attn.c_attn",
    "self_attention.output": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.inner": "mlp.c_fc",
    "feed_forward.outer": "mlp.c_proj",
}
LLAMA_LAYER = {
    "self_attention_norm": ["input_layernorm"],
    "self_attention.query_key_value": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "self_attention.output": ["self_attn.o_proj"],
    "feed_forward_norm": ["post_attention_layernorm"],
    "feed_forward.gate_and_inner": ["mlp.gate_proj", "mlp.up_proj"],
    "feed_forward.outer": ["mlp.down_proj"],
}


class Layout(NamedTuple):
    """A family of networks at Hugging Face.

    Attributes:
        title: name of the family in messages.
        lacks: returns the settings of a network that the layout does not support.
        config: returns the family's keys for a network's config.json.
        read: returns the values of our network's config for these keys, and raises ModelError for
            a value that our network does not support.
        context_length: the config key of the number of positions.
        places: maps each of our parameters to its weights in the layout.
        architecture: name of Hugging Face's class with a language-model head.
        prefix: prefix of all weights' names except the head's. Files of networks without a head
            omit it.
        embedding: name of the weight with the token vectors.
    """

    title: str
    lacks: Callable[[DecoderOnlyConfig], list[str]]
    config: Callable[[DecoderOnly], dict[str, Any]]
    read: Callable[[Mapping[str, Any]], dict[str, Any]]
    context_length: str
    places: Callable[[DecoderOnlyConfig], dict[str, WeightLocation]]
    architecture: str
    prefix: str
    embedding: str


def _not_in(config: DecoderOnlyConfig, **possible: tuple[object, ...]) -> list[str]:
    given = {name: getattr(config, name) for name in possible}
    return [f"{name}={value}" for name, value in given.items() if value not in possible[name]]


# ---- GPT-2 (Radford et al. 2019) ----


def _gpt2_lacks(config: DecoderOnlyConfig) -> list[str]:
    return _not_in(
        config,
        positions=("learned",),
        norm_kind=("layer",),
        activation=tuple(ACTIVATIONS),
        bias=(True,),
        key_value_heads=(config.heads,),
    )


def _gpt2_config(network: DecoderOnly) -> dict[str, Any]:
    config = network.config
    return {
        "n_positions": network.context_length,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.inner_width,
        "activation_function": ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_epsilon,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
    }


def _read_gpt2(config: Mapping[str, Any]) -> dict[str, Any]:
    dropout = config.get("resid_pdrop", 0.1)
    refuse_unsupported_values(
        config,
        activation_function=tuple(ACTIVATIONS_READ),
        scale_attn_weights=(True,),
        scale_attn_by_inverse_layer_idx=(False,),
        add_cross_attention=(False,),
        quantization_config=(None,),
    )
    refuse_unsupported_values({"embd_pdrop": config.get("embd_pdrop", 0.1)}, embd_pdrop=(dropout,))
    return {
        "preset": "gpt2",
        "layers": count(config, "n_layer"),
        "width": count(config, "n_embd"),
        "heads": count(config, "n_head"),
        "feed_forward_width": config.get("n_inner"),
        "activation": ACTIVATIONS_READ[config.get("activation_function", "gelu_new")],
        "norm_epsilon": config.get("layer_norm_epsilon", 1e-5),
        "tie_embeddings": config.get("tie_word_embeddings", True),
        "dropout": dropout,
        "attention_dropout": config.get("attn_pdrop", 0.1),
    }


def _gpt2_places(config: DecoderOnlyConfig) -> dict[str, WeightLocation]:
    places = {
        "embedding.weight": WeightLocation(["transformer.wte.weight"]),
        "positions.weight": WeightLocation(["transformer.wpe.weight"]),
        "last_norm.weight": WeightLocation(["transformer.ln_f.weight"]),
        "last_norm.bias": WeightLocation(["transformer.ln_f.bias"]),
    }
    for number in range(config.layers):
        for ours, theirs in GPT2_LAYER.items():
            name = f"transformer.h.{number}.{theirs}"
            places[f"layers.{number}.{ours}.bias"] = WeightLocation([f"{name}.bias"])
            places[f"layers.{number}.{ours}.weight"] = WeightLocation(
                [f"{name}.weight"], transposed=not ours.endswith("norm")
            )
    return places | _head(config)


# ---- Llama (Touvron et al. 2023) ----


def _llama_lacks(config: DecoderOnlyConfig) -> list[str]:
    return _not_in(config, positions=("rotary",), norm_kind=("rms",), activation=("swiglu",))


def _llama_config(network: DecoderOnly) -> dict[str, Any]:
    config = network.config
    return {
        "max_position_embeddings": network.context_length,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.groups,
        "head_dim": config.head_width,
        "intermediate_size": config.inner_width,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rotary_base,  # read by transformers 4
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "attention_dropout": config.attention_dropout,
    }


def _read_llama(config: Mapping[str, Any]) -> dict[str, Any]:
    width, heads = count(config, "hidden_size"), count(config, "num_attention_heads")
    bias = config.get("attention_bias", False)
    refuse_unsupported_values(
        config,
        hidden_act=("silu", "swish"),
        head_dim=(width // heads, None),
        quantization_config=(None,),
    )
    refuse_unsupported_values({"mlp_bias": config.get("mlp_bias", False)}, mlp_bias=(bias,))
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    refuse_unsupported_values({"rope_type": kind}, rope_type=("default",))
    refuse_unsupported_values(rotary, partial_rotary_factor=(1.0,))
    return {
        "preset": "llama",
        "layers": count(config, "num_hidden_layers"),
        "width": width,
        "heads": heads,
        "key_value_heads": config.get("num_key_value_heads"),
        "rotary_base": rotary.get("rope_theta", config.get("rope_theta", 10000.0)),
        "feed_forward_width": count(config, "intermediate_size"),
        "norm_epsilon": config.get("rms_norm_eps", 1e-6),
        "bias": bias,
        "tie_embeddings": config.get("tie_word_embeddings", False),
        "attention_dropout": config.get("attention_dropout", 0.0),
    }


def _llama_places(config: DecoderOnlyConfig) -> dict[str, WeightLocation]:
    places = {
        "embedding.weight": WeightLocation(["model.embed_tokens.weight"]),
        "last_norm.weight": WeightLocation(["model.norm.weight"]),
    }
    shared = config.groups * config.head_width
    rows = {
        "self_attention.query_key_value": [config.width, shared, shared],
        "feed_forward.gate_and_inner": [config.inner_width] * 2,
    }
    for number in range(config.layers):
        for ours, theirs in LLAMA_LAYER.items():
            has_bias = config.bias and not ours.endswith("norm")
            for kind in ("weight", "bias") if has_bias else ("weight",):
                places[f"layers.{number}.{ours}.{kind}"] = WeightLocation(
                    [f"model.layers.{number}.{name}.{kind}" for name in theirs], rows.get(ours)
                )
    return places | _head(config)


def _head(config: DecoderOnlyConfig) -> dict[str, WeightLocation]:
    return {} if config.tie_embeddings else {"output_embedding.weight": WeightLocation([HEAD])}


# Layouts by model_type.
LAYOUTS = {
    "gpt2": Layout(
        title="GPT-2",
        lacks=_gpt2_lacks,
        config=_gpt2_config,
        read=_read_gpt2,
        context_length="n_positions",
        places=_gpt2_places,
        architecture="GPT2LMHeadModel",
        prefix="transformer.",
        embedding="transformer.wte.weight",
    ),
    "llama": Layout(
        title="Llama",
        lacks=_llama_lacks,
        config=_llama_config,
        read=_read_llama,
        context_length="max_position_embeddings",
        places=_llama_places,
        architecture="LlamaForCausalLM",
        prefix="model.",
        embedding="model.embed_tokens.weight",
    ),
}
