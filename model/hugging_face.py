"""Decoder-only networks to and from Hugging Face, as GPT-2 or Llama.

    DecoderOnly ─▶ to_hugging_face ─▶ config, weights ─▶ config.json, model.safetensors
    config.json, *.safetensors ─▶ config, weights ─▶ from_hugging_face ─▶ DecoderOnly

What neither layout (`model.hugging_face_layouts`) can hold is refused by name. Dropout is no part
of Llama's and acts in training alone: there it is left out, apart from that of attention.
Files are read as safetensors only: pickle can execute code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.config import AttentionBackend
from model.decoder_only import DecoderOnly
from model.decoder_only_config import DecoderOnlyConfig
from model.errors import ModelError
from model.hugging_face_layouts import HEAD, LAYOUTS, Layout, Place

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# Constants that older versions have stored beside the weights.
CONSTANTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


class HuggingFaceModel(NamedTuple):
    """What the two kinds of file hold.

    Attributes:
        config: of config.json.
        weights: by Hugging Face's names, on the device and in the dtype of the network.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]


def to_hugging_face(network: DecoderOnly) -> HuggingFaceModel:
    """Returns a network, its weights copied, in the layout that can hold it.

    Its special tokens are None, except for padding; `save_hugging_face` is told the others.

    Raises:
        ModelError: no layout holds such a network.
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
    places = layout.places(network.config)
    weights = {}
    for name, parameter in network.named_parameters():
        place = places[name]
        whole = parameter.detach()
        parts = whole.split(place.rows) if place.rows else [whole]
        for their_name, part in zip(place.names, parts, strict=True):
            theirs = part.T if place.transposed else part
            weights[their_name] = theirs.clone(memory_format=torch.contiguous_format)
    return HuggingFaceModel(config, weights)


def from_hugging_face(
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    attention_backend: AttentionBackend | None = None,
) -> DecoderOnly:
    """Returns the network that a config and weights describe, with copies of the weights.

    It has the device and the dtype of the token vectors. Where the config has no padding, EOS or
    else token 0 stands for it: what stands at padding is never looked at.

    Raises:
        ModelError: the network is of another family or form, or the weights are not its own.
    """
    layout = LAYOUTS.get(str(config.get("model_type")))
    if layout is None:
        raise ModelError(
            f"model_type of the config is {config.get('model_type')!r}, but it must be "
            f"{' or '.join(LAYOUTS)}. Convert the network to one of these first."
        )
    try:
        ours, vocabulary_size, context_length = layout.read(config)
    except ValidationError as error:
        raise ModelError(
            f"The config describes no network that can be built: {error}. Take the {CONFIG_FILE} "
            "that belongs to the weights."
        ) from error
    with torch.device("meta"):  # the weights come from elsewhere
        network = DecoderOnly(
            ours,
            vocabulary_size,
            _padding(config, vocabulary_size),
            context_length,
            attention_backend,
        )
    theirs = _as_named_now(weights, layout, ours.tie_embeddings)
    state = {
        name: _joined(theirs, place, network.get_parameter(name).shape)
        for name, place in layout.places(ours).items()
    }
    if theirs:
        raise ModelError(
            f"{len(theirs)} weights are none of {layout.title}'s, such as {min(theirs)}. Take a "
            "network that has a language model's head and nothing else."
        )
    vectors = state["embedding.weight"]
    network.load_state_dict({name: x.to(vectors) for name, x in state.items()}, assign=True)
    return network


def save_hugging_face(
    network: DecoderOnly, folder: Path, *, bos_id: int | None, eos_id: int, pad_id: int | None
) -> None:
    """Writes config.json and model.safetensors, over those that are in the folder.

    Raises:
        ModelError: no layout holds such a network.
    """
    config, weights = to_hugging_face(network)
    special = {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": pad_id}
    folder.mkdir(parents=True, exist_ok=True)
    on_host = {name: tensor.cpu() for name, tensor in weights.items()}
    save_file(on_host, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    text = json.dumps(config | special, indent=2, sort_keys=True)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def load_hugging_face(
    folder: Path, attention_backend: AttentionBackend | None = None
) -> DecoderOnly:
    """Reads config.json and the weights, which are in one safetensors file or in several.

    Raises:
        ModelError: a file is missing or damaged, or `from_hugging_face` refuses what it holds.
    """
    config = _read_json(folder / CONFIG_FILE)
    weights: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        try:
            weights |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{file} cannot be read as safetensors: {error}. Download it again."
            ) from error
    return from_hugging_face(config, weights, attention_backend)


def _layout_for(config: DecoderOnlyConfig) -> tuple[str, Layout]:
    lacks = {family: layout.lacks(config) for family, layout in LAYOUTS.items()}
    for family, layout in LAYOUTS.items():
        if not lacks[family]:
            return family, layout
    reasons = [f"{LAYOUTS[family].title} has no {', '.join(no)}" for family, no in lacks.items()]
    raise ModelError(
        f"The network fits no layout of Hugging Face's: {'; '.join(reasons)}. Export a network "
        "with the form of model.preset=gpt2 or llama."
    )


def _padding(config: Mapping[str, Any], vocabulary_size: int) -> int:
    eos = config.get("eos_token_id")
    candidates = [config.get("pad_token_id"), *(eos if isinstance(eos, list) else [eos])]
    tokens = [id for id in candidates if isinstance(id, int) and 0 <= id < vocabulary_size]
    return tokens[0] if tokens else 0


def _as_named_now(weights: Mapping[str, Tensor], layout: Layout, tied: bool) -> dict[str, Tensor]:
    """Returns the weights by the names of the layout, the head only if it has a matrix of its own.

    Some files were saved without the head's class and lack the prefix, as GPT-2's own.
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
                f"tie_word_embeddings of the config is true, but {HEAD} is not "
                f"{layout.embedding}. Set it to false in {CONFIG_FILE}."
            )
    return named


def _joined(theirs: dict[str, Tensor], place: Place, shape: torch.Size) -> Tensor:
    """Takes the parts of a parameter out of the weights and makes one of them."""
    missing = [name for name in place.names if name not in theirs]
    if missing:
        raise ModelError(
            f"There is no weight {missing[0]}. Take all files of the network, and the "
            f"{CONFIG_FILE} that belongs to them."
        )
    parts = [theirs.pop(name) for name in place.names]
    if place.transposed:
        parts = [part.T for part in parts]
    rows = place.rows or [shape[0]]
    for name, part, count in zip(place.names, parts, rows, strict=True):
        expected = (count, *shape[1:])
        if part.shape != expected:
            found, wanted = tuple(part.shape), expected
            if place.transposed:
                found, wanted = found[::-1], wanted[::-1]
            raise ModelError(
                f"The weight {name} has the shape {found}, but by the config it must be {wanted}. "
                f"Take the {CONFIG_FILE} that belongs to the weights."
            )
    return torch.cat(parts)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX_FILE).is_file():
        files = _read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(files, dict) or not all(_is_plain(name) for name in files.values()):
            raise ModelError(
                f"weight_map of {folder / INDEX_FILE} does not name safetensors files of its "
                "folder. Download it again."
            )
        return [folder / name for name in sorted(set(files.values()))]
    if not (folder / WEIGHTS_FILE).is_file():
        raise ModelError(
            f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}, and weights in other formats "
            "are not read: pickle can execute code. Save the network as safetensors."
        )
    return [folder / WEIGHTS_FILE]


def _is_plain(name: object) -> bool:
    """Whether a name cannot lead out of its folder."""
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Download it again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is no JSON object. Download it again.")
    return content
