"""Hugging Face's BERT with the weights of our encoder."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import BertConfig

from model.config.encoder_only import EncoderOnlyConfig


def bert_config(config: EncoderOnlyConfig, pieces: int, context: int, **more: Any) -> BertConfig:
    """Return transformers' settings of a network without dropout."""
    return BertConfig(
        vocab_size=pieces,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.inner_width,
        hidden_act=config.activation,
        max_position_embeddings=context,
        type_vocab_size=config.segments,
        layer_norm_eps=config.norm_epsilon,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
        **more,
    )


def copied_weights(
    ours: nn.Module, theirs: nn.Module, layers: int, others: Mapping[str, str]
) -> dict[str, list[str]]:
    """Copy our weights into a network of transformers, and check that none of its weights is left.

    A fused matrix of ours corresponds to several matrices of transformers.

    Args:
        others: for modules and parameters outside of the encoder, the name in transformers by our
            name.

    Returns:
        For each of our parameters, its names in transformers.
    """
    table = {
        "encoder.embedding": ["bert.embeddings.word_embeddings"],
        "encoder.positions": ["bert.embeddings.position_embeddings"],
        "encoder.segments": ["bert.embeddings.token_type_embeddings"],
        "encoder.embedding_norm": ["bert.embeddings.LayerNorm"],
        **{name: [other] for name, other in others.items()},
    }
    for n in range(layers):
        mine, other = f"encoder.layers.{n}.", f"bert.encoder.layer.{n}."
        own = [f"{other}attention.self.{name}" for name in ("query", "key", "value")]
        table |= {
            mine + "self_attention.query_key_value": own,
            mine + "self_attention.output": [other + "attention.output.dense"],
            mine + "self_attention_norm": [other + "attention.output.LayerNorm"],
            mine + "feed_forward.inner": [other + "intermediate.dense"],
            mine + "feed_forward.outer": [other + "output.dense"],
            mine + "feed_forward_norm": [other + "output.LayerNorm"],
        }
    named, places = dict(theirs.named_parameters()), {}
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            module, _, vector = name.rpartition(".")
            places[name] = table.get(name) or [f"{part}.{vector}" for part in table[module]]
            pieces = parameter.chunk(len(places[name]))
            for part, piece in zip(places[name], pieces, strict=True):
                named[part].copy_(piece)
    assert sorted(part for parts in places.values() for part in parts) == sorted(named)
    return places
