"""Conversion of decoder-only networks to and from Hugging Face's GPT-2 or Llama.

    DecoderOnly ─▶ to_hugging_face ─▶ config, weights ─▶ config.json, model.safetensors
    config.json, *.safetensors ─▶ config, weights ─▶ from_hugging_face ─▶ DecoderOnly

Settings that neither layout (`model.hugging_face.layouts`) supports are refused by name. Llama's
layout has only attention dropout, and dropout matters only in training. So an export to this layout
omits other dropout.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config.decoder_only import DecoderOnlyConfig
from model.errors import ModelError
from model.hugging_face.files import CONFIG_FILE, read_model, write_model
from model.hugging_face.layouts import HEAD, LAYOUTS, Layout
from model.hugging_face.weight_mapping import (
    HuggingFaceModel,
    count,
    join_parameters,
    load_weights_like,
    network_config,
    refuse_unused_weights,
    split_parameters,
)
from model.networks.decoder_only import DecoderOnly

# Constants that older versions of transformers stored with the weights.
CONSTANTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


def to_hugging_face(network: DecoderOnly) -> HuggingFaceModel:
    """Return a network in the layout that supports it, with copied weights.

    In the config, all special tokens except padding are None; `save_hugging_face` sets them.

    Raises:
        ModelError: no layout supports the network.
    """
    family, layout = _layout_for(network.config)
    config = {
        **layout.config(network),
        "model_type": family,
        "architectures": [layout.architecture],
        "vocab_size": network.vocabulary_size,
        "tie_word_embeddings": network.config.tie_embeddings,
        "dtype": str(network.output_weight.dtype).removeprefix("torch."),
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": network.pad_id,
    }
    return HuggingFaceModel(config, split_parameters(network, layout.places(network.config)))


def from_hugging_face(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> DecoderOnly:
    """Return the network that a config and weights describe, with copies of the weights.

    The network has the device and the dtype of the token vectors in `weights`. If the config has no
    padding token, EOS is used for padding, or token 0 if there is no EOS. Ids at padding affect no
    result.

    Raises:
        ModelError: the network is of another family or architecture, or the weights do not fit it.
    """
    layout = LAYOUTS.get(str(config.get("model_type")))
    if layout is None:
        raise ModelError(
            f"model_type of the config is {config.get('model_type')!r}, but it must be "
            f"{' or '.join(LAYOUTS)}. Convert the network to one of these first."
        )
    ours = network_config(DecoderOnlyConfig, layout.read(config))
    vocabulary_size = count(config, "vocab_size")
    context_length = count(config, layout.context_length)
    with torch.device("meta"):  # the weights are assigned below
        pad_id = _padding(config, vocabulary_size)
        network = DecoderOnly(ours, vocabulary_size, pad_id, context_length)
    theirs = _with_current_names(weights, layout, ours.tie_embeddings)
    state = join_parameters(theirs, layout.places(ours), network)
    refuse_unused_weights(theirs, layout.title, "that has a language model's head")
    load_weights_like(network, state, "embedding.weight")
    return network


def save_hugging_face(
    network: DecoderOnly, folder: Path, *, bos_id: int | None, eos_id: int, pad_id: int | None
) -> None:
    """Write config.json and model.safetensors, replacing existing files.

    Raises:
        ModelError: no layout supports the network.
    """
    config, weights = to_hugging_face(network)
    special = {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": pad_id}
    write_model(folder, HuggingFaceModel(config | special, weights))


def load_hugging_face(folder: Path) -> DecoderOnly:
    """Read a network from config.json and one or several safetensors files.

    Raises:
        ModelError: a file is missing or damaged, or `from_hugging_face` refuses its contents.
    """
    return from_hugging_face(*read_model(folder))


def _layout_for(config: DecoderOnlyConfig) -> tuple[str, Layout]:
    lacks = {family: layout.lacks(config) for family, layout in LAYOUTS.items()}
    for family, layout in LAYOUTS.items():
        if not lacks[family]:
            return family, layout
    reasons = [f"{LAYOUTS[family].title} has no {', '.join(no)}" for family, no in lacks.items()]
    raise ModelError(
        f"No layout of Hugging Face supports the network: {'; '.join(reasons)}. Export a network "
        "with the architecture of model.preset=gpt2 or llama."
    )


def _padding(config: Mapping[str, Any], vocabulary_size: int) -> int:
    eos = config.get("eos_token_id")
    candidates = [config.get("pad_token_id"), *(eos if isinstance(eos, list) else [eos])]
    tokens = [id for id in candidates if isinstance(id, int) and 0 <= id < vocabulary_size]
    return tokens[0] if tokens else 0


def _with_current_names(
    weights: Mapping[str, Tensor], layout: Layout, tied: bool
) -> dict[str, Tensor]:
    """Return the weights under the layout's names, with the head only if its matrix is separate.

    Files saved from a class without the head, such as those of GPT-2, lack the prefix of the names.
    """
    named = {
        name if name.startswith(layout.prefix) or name == HEAD else layout.prefix + name: tensor
        for name, tensor in weights.items()
        if not name.endswith(CONSTANTS)
    }
    if tied and HEAD in named:
        head, vectors = named.pop(HEAD), named.get(layout.embedding)
        if vectors is None or not torch.equal(head, vectors):
            raise ModelError(
                f"tie_word_embeddings of the config is true, but {HEAD} differs from "
                f"{layout.embedding}. Set tie_word_embeddings to false in {CONFIG_FILE}."
            )
    return named
