"""Initial weights of a run from a folder in Hugging Face's layout.

    folder ──reader of its family──▶ weights, facts ──compared with the recipe's──▶ FolderWeights

An encoder with another head, such as a classifier, can start from any BERT: then only the encoder's
weights are taken. The head of a classifier is taken if the labels are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundation.wording import join_items
from model.config.encoder_only import EncoderOnlyConfig
from model.errors import ModelError
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.heads.sentence_encoder import SentenceEncoder
from model.hugging_face.bert import read_bert
from model.hugging_face.files import read_model
from model.hugging_face.language_model import from_hugging_face
from model.hugging_face.marian import from_marian
from model.networks.decoder_only import DecoderOnly
from model.networks.transformer import Transformer
from run_store.checkpoints.fragment import MASTER, FragmentReader
from run_store.errors import RunMismatchError
from trainer.zero.engine import TrainingEngine

# Fields of `model` that may differ between the recipe and the folder.
_FREE = ("network", "preset", "dropout", "attention_dropout", "pooling", "temperature")
_CLASSIFIER = "classifier."  # name prefix of parameters that have a row per label


@dataclass(frozen=True)
class FolderWeights:
    """Initial weights from a folder.

    Attributes:
        read: reader of the weights, in fp32; for moments, it returns zeros.
        fresh: names of the parameters that the folder does not have.
    """

    folder: Path
    read: FragmentReader
    fresh: tuple[str, ...]

    @property
    def fresh_text(self) -> str | None:
        """Description of the parameters that the folder does not have, or None if it has all."""
        if not self.fresh:
            return None
        return (
            f"the encoder is taken from {self.folder}. Newly initialized: {join_items(self.fresh)}"
        )


def folder_weights(
    folder: Path, engine: TrainingEngine, labels: tuple[str, ...] = ()
) -> FolderWeights:
    """Return the weights of a folder for the network of an engine.

    Args:
        labels: the labels of the recipe in their order; empty if it has none.

    Raises:
        ModelError: the folder has no readable network, or a weight is not finite.
        RunMismatchError: the network in the folder differs from that of the engine.
    """
    ours = engine.module
    config, weights = read_model(folder)
    if isinstance(ours, (Transformer, DecoderOnly)):
        reader = from_marian if isinstance(ours, Transformer) else from_hugging_face
        theirs: nn.Module = reader(config, weights)
        _require_same_network(folder, _facts(ours), _facts(theirs))
        found: dict[str, Tensor] = dict(theirs.named_parameters())
    elif isinstance(ours, (MaskedLanguageModel, SentenceEncoder, LabelModel)):
        bert = read_bert(config, weights)
        sizes = bert.vocabulary_size, bert.context_length
        _require_same_network(folder, _facts(ours), _encoder_facts(bert.config, *sizes))
        same_labels = bert.labels == labels
        found = {
            name: weight
            for name, weight in bert.weights.items()
            if same_labels or not name.startswith(_CLASSIFIER)
        }
    else:
        raise RunMismatchError(
            f"trainer.init_from is {folder}, a Hugging Face model. Only networks that are built in "
            "can start from such a model, but the recipe's network is a "
            f"{type(ours).__name__}: name a run of such a network"
        )
    shapes = engine.parameter_shapes
    flat = {n: w.detach().float().flatten() for n, w in found.items() if n in shapes}
    for name, weight in flat.items():
        if not weight.isfinite().all():
            raise ModelError(
                f"{folder} has a weight in {name} that is NaN or infinite: download the model again"
            )

    def read(kind: str, parameter: str, start: int, target: torch.Tensor) -> None:
        if kind == MASTER:
            target.copy_(flat[parameter][start : start + target.numel()])
        else:
            target.zero_()

    return FolderWeights(folder, read, tuple(name for name in shapes if name not in flat))


def _facts(network: nn.Module) -> dict[str, Any]:
    """Return the properties that two networks must have in common, by name."""
    if isinstance(network, MaskedLanguageModel | SentenceEncoder | LabelModel):
        encoder = network.encoder
        return _encoder_facts(encoder.config, encoder.vocabulary_size, encoder.context_length)
    if isinstance(network, DecoderOnly):
        facts = _model_facts(network.config.model_dump()) | _piece_fact(network.vocabulary_size)
        if network.config.positions == "learned":
            facts["batching.context_length"] = network.context_length
        return facts
    assert isinstance(network, Transformer)
    config = {**network.config.model_dump(), "key_value_heads": network.config.groups}
    return _model_facts(config) | {"the vocabulary": network.vocabulary}


def _encoder_facts(
    config: EncoderOnlyConfig, vocabulary_size: int, context_length: int
) -> dict[str, Any]:
    context = {"batching.context_length": context_length}
    return _model_facts(config.model_dump()) | _piece_fact(vocabulary_size) | context


def _piece_fact(vocabulary_size: int) -> dict[str, Any]:
    return {"pieces of the dataset's tokenizer": vocabulary_size}


def _model_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    return {f"model.{name}": value for name, value in config.items() if name not in _FREE}


def _require_same_network(folder: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    differences = [
        f"{name}: {here} in the recipe, {theirs[name]} in {folder}"
        for name, here in ours.items()
        if name in theirs and here != theirs[name]
    ]
    if differences:
        raise RunMismatchError(
            f"trainer.init_from: the network in {folder} differs from that of the recipe: "
            f"{'; '.join(differences)}. Change the recipe to the values in {folder}; "
            "`transloom init --init-from` writes such a recipe"
        )
