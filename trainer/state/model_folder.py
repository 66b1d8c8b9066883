"""Initial weights of a run from a folder in Hugging Face's layout.

folder ──from_marian, from_bert──▶ network ──compared with the recipe's──▶ reader of its weights
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.errors import ModelError
from model.heads.masked_head import MaskedLanguageModel
from model.heads.sentence_encoder import SentenceEncoder
from model.hugging_face.bert import from_bert
from model.hugging_face.files import read_model
from model.hugging_face.marian import from_marian
from model.networks.transformer import Transformer
from trainer.errors import RunMismatchError
from trainer.zero.engine import TrainingEngine
from trainer.zero.fragment import MASTER, FragmentReader

READERS: Mapping[type[nn.Module], Callable[..., nn.Module]] = {
    Transformer: from_marian,
    MaskedLanguageModel: from_bert,
    SentenceEncoder: from_bert,  # only the weights of BERT's encoder are read
}
# Fields of `model` that may differ between the recipe and the folder.
_FREE = ("network", "preset", "dropout", "attention_dropout", "pooling", "temperature")


def folder_weights(folder: Path, engine: TrainingEngine) -> FragmentReader:
    """Return a reader of the weights in a folder, in fp32; for moments, it returns zeros.

    Raises:
        ModelError: the folder has no readable network, or a weight is not finite.
        RunMismatchError: the network in the folder differs from that of the engine.
    """
    ours = engine.module
    if type(ours) not in READERS:
        raise RunMismatchError(
            f"trainer.init_from is {folder}, a Hugging Face model. Only encoder–decoders, masked "
            "models and sentence encoders can start from such a model, but the recipe's network "
            f"is a {type(ours).__name__}: name a run of such a network"
        )
    theirs = READERS[type(ours)](*read_model(folder))
    _require_same_network(folder, _facts(ours), _facts(theirs))
    weights = {n: p.detach().float().flatten() for n, p in theirs.named_parameters()}
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ModelError(
                f"{folder} has a weight in {name} that is NaN or infinite: download the model again"
            )

    def read(kind: str, parameter: str, start: int, target: torch.Tensor) -> None:
        if kind == MASTER:
            target.copy_(weights[parameter][start : start + target.numel()])
        else:
            target.zero_()

    return read


def _facts(network: nn.Module) -> dict[str, Any]:
    """Return the properties that two networks must have in common, by name."""
    facts: dict[str, Any]
    if isinstance(network, MaskedLanguageModel | SentenceEncoder):
        encoder = network.encoder
        config, facts = encoder.config.model_dump(), {}
        facts["pieces of the dataset's tokenizer"] = encoder.vocabulary_size
        facts["batching.context_length"] = encoder.context_length
    else:
        assert isinstance(network, Transformer)
        config = {**network.config.model_dump(), "key_value_heads": network.config.groups}
        facts = {"the vocabulary": network.vocabulary}
    return {f"model.{name}": x for name, x in config.items() if name not in _FREE} | facts


def _require_same_network(folder: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    differences = [
        f"{name}: {here} in the recipe, {theirs[name]} in {folder}"
        for name, here in ours.items()
        if here != theirs[name]
    ]
    if differences:
        raise RunMismatchError(
            f"trainer.init_from: the network in {folder} differs from that of the recipe: "
            f"{'; '.join(differences)}. Change the recipe to the values in {folder}. For "
            "translation, `transloom init --init-from` writes such a recipe"
        )
