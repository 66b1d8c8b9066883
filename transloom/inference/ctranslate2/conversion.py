"""Conversion of a translation network and its tokenizers to a CTranslate2 model.

    model.bin                    weights and position table
    config.json                  special tokens, and the setting that sources end with EOS
    shared_vocabulary.json       pieces by id; if the two sides have different pieces, replaced by
                                 source_vocabulary.json and target_vocabulary.json
    source.model, target.model   SentencePiece models; equal files if both sides share a tokenizer

CTranslate2's layers, attention and embeddings compute the same functions as ours under other names.
Weights keep their values unless quantization stores them in fewer bits. CTranslate2's own position
table differs: it begins at position 1, and divides by width / 2 - 1. Our table is therefore written
into the model; its number of rows limits the length of a sentence. The conversion was written for
CTranslate2 4.8.5.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_pipeline.config.pair import SOURCE, TARGET, PairDataConfig
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.blocks.attention import CrossAttention, SelfAttention
from model.blocks.feed_forward import FeedForward
from model.blocks.positions import sinusoidal_table
from model.config.transformer import DecodingConfig, ModelConfig
from model.errors import ModelError
from model.networks.transformer import Transformer
from trainer.recipe import TrainingRecipe
from transloom.inference.ctranslate2.library import specifications
from transloom.inference.engine_names import ComputeType

SOURCE_MODEL, TARGET_MODEL = "source.model", "target.model"

# Minimum number of rows of the position table; few sentences have more tokens.
MIN_POSITIONS = 1024

# Fields of the model configuration that the conversion handles or does not need. All other fields
# must have their default value.
FIELDS = {
    *("network", "encoder_layers", "decoder_layers", "width", "feed_forward_width", "heads"),
    *("norm", "share_embeddings", "dropout", "attention_dropout"),
    *("activation", "output_bias", "decoder_start"),
}
# Activations and their names in CTranslate2. Both libraries compute the exact GELU.
ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "silu": "SWISH"}


def write_model(
    network: nn.Module,
    tokenizers: Mapping[str, Tokenizer],
    positions: int,
    folder: Path,
    quantization: ComputeType | None = None,
) -> None:
    """Write all files of the CTranslate2 model into a folder.

    Args:
        tokenizers: the tokenizer of each field, by the field's name.
        positions: maximum tokens of a source or of a translation, EOS included.
        quantization: type of the stored weights, or None for unchanged fp32.

    Raises:
        ModelError: CTranslate2 does not support the network or a tokenizer; the message says why.
        EngineError: CTranslate2 is not installed.
    """
    assert not network.training
    network = require_supported(network, tokenizers)
    spec = _model_spec(network, positions)
    source, target = (_pieces(tokenizers[field]) for field in (SOURCE, TARGET))
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    special = tokenizers[TARGET].special_ids
    spec.config.unk_token = target[special.unk]
    spec.config.bos_token = target[special.bos]
    spec.config.decoder_start_token = target[network.vocabulary.bos_id]
    spec.config.eos_token = target[special.eos]
    spec.config.add_source_bos = False
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = _norm_epsilon(network)
    spec.validate()
    spec.optimize(quantization=None if quantization is None else quantization.value)
    spec.save(str(folder))
    (folder / SOURCE_MODEL).write_bytes(tokenizers[SOURCE].model)
    (folder / TARGET_MODEL).write_bytes(tokenizers[TARGET].model)


def positions_of(recipe: TrainingRecipe) -> int:
    """Return the number of positions for a run's longest sources and their translations.

    The number is at least MIN_POSITIONS.
    """
    assert isinstance(recipe.data, PairDataConfig)
    assert isinstance(recipe.decoding, DecodingConfig)
    longest, decoding = recipe.data.max_source_length, recipe.decoding
    output = int(decoding.max_length_factor * longest) + decoding.max_extra_length
    return max(MIN_POSITIONS, longest, output)


def require_supported(network: nn.Module, tokenizers: Mapping[str, Tokenizer]) -> Transformer:
    """Return the network if CTranslate2 supports all of its features and its tokenizers.

    Raises:
        ModelError: CTranslate2 does not support a feature, which the message names.
    """
    if type(network) is not Transformer:
        raise _unsupported(
            f"The network is a {type(network).__name__}", "transloom's own Transformer"
        )
    default = ModelConfig()
    for name in sorted(set(ModelConfig.model_fields) - FIELDS):
        value = getattr(network.config, name)
        if value != getattr(default, name):
            raise _unsupported(f"model.{name} is {value!r}", repr(getattr(default, name)))
    if (activation := network.config.activation) not in ACTIVATIONS:
        raise _unsupported(f"model.activation is {activation!r}", " or ".join(ACTIVATIONS))
    for tokenizer in tokenizers.values():
        if tokenizer.kind is not None:
            what = f"The tokenizer {tokenizer.name} is of the kind {tokenizer.kind}"
            raise _unsupported(what, "SentencePiece tokenizers")
    return network


def _unsupported(what: str, supported: str) -> ModelError:
    return ModelError(
        f"{what}, but the conversion to CTranslate2 supports only {supported}. Translate with "
        "transloom's own engine."
    )


def _pieces(tokenizer: Tokenizer) -> list[str]:
    """Return all pieces, ordered by id; CTranslate2 reads and writes pieces instead of ids."""
    return [tokenizer.piece(number) for number in range(tokenizer.vocabulary_size)]


def _norm_epsilon(network: Transformer) -> float:
    norms = [module for module in network.modules() if isinstance(module, nn.LayerNorm)]
    (epsilon,) = {norm.eps for norm in norms}
    return float(epsilon)


def _model_spec(network: Transformer, positions: int) -> Any:
    config = network.config
    spec = specifications().TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.heads,
        pre_norm=config.norm == "pre",
        activation=specifications().common_spec.Activation[ACTIVATIONS[config.activation]],
        # Take alignments from all heads of the decoder's last layer but one, like
        # `model.inspection.alignment`.
        alignment_layer=max(0, config.decoder_layers - 2),
        alignment_heads=config.heads,
    )
    table = sinusoidal_table(positions, config.width).numpy()
    for stack, ours in ((spec.encoder, network.encoder), (spec.decoder, network.decoder)):
        stack.scale_embeddings = True
        stack.position_encodings.encodings = table
        for layer, own in zip(stack.layer, ours.layers, strict=True):
            _self_attention(layer.self_attention, own.self_attention, own.self_attention_norm)
            if ours is network.decoder:
                _cross_attention(layer.attention, own.cross_attention, own.cross_attention_norm)
            _feed_forward(layer.ffn, own.feed_forward, own.feed_forward_norm)
        if config.norm == "pre":
            _norm(stack.layer_norm, ours.last_norm)
    # CTranslate2 stores an array once, even if it is assigned to several weights.
    target = network.target_embedding.weight.detach().numpy()
    source = target if network.source_embedding is None else _array(network.source_embedding)
    output = target if network.output_embedding is None else _array(network.output_embedding)
    spec.encoder.embeddings[0].weight = source
    spec.decoder.embeddings.weight = target
    spec.decoder.projection.weight = output
    if network.output_bias is not None:
        spec.decoder.projection.bias = network.output_bias.detach().numpy()
    return spec


def _array(module: nn.Module) -> Any:
    """Return a module's weight as a numpy array."""
    assert isinstance(module.weight, torch.Tensor)
    return module.weight.detach().numpy()


def _self_attention(spec: Any, attention: Any, norm: Any) -> None:
    assert isinstance(attention, SelfAttention)
    _linear(spec.linear[0], attention.query_key_value)
    _linear(spec.linear[1], attention.output)
    _norm(spec.layer_norm, norm)


def _cross_attention(spec: Any, attention: Any, norm: Any) -> None:
    assert isinstance(attention, CrossAttention)
    _linear(spec.linear[0], attention.query)
    _linear(spec.linear[1], attention.key_value)
    _linear(spec.linear[2], attention.output)
    _norm(spec.layer_norm, norm)


def _feed_forward(spec: Any, feed_forward: Any, norm: Any) -> None:
    assert isinstance(feed_forward, FeedForward)
    _linear(spec.linear_0, feed_forward.inner)
    _linear(spec.linear_1, feed_forward.outer)
    _norm(spec.layer_norm, norm)


def _linear(spec: Any, linear: nn.Module) -> None:
    assert isinstance(linear.bias, torch.Tensor)
    spec.weight = _array(linear)
    spec.bias = linear.bias.detach().numpy()


def _norm(spec: Any, norm: nn.Module) -> None:
    assert isinstance(norm.bias, torch.Tensor)
    spec.gamma = _array(norm)
    spec.beta = norm.bias.detach().numpy()
