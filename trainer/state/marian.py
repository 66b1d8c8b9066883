"""The weights of a Marian model's folder, as the first weights of a run.

folder ──from_marian──▶ network ──is it the recipe's?──▶ a reader of its weights
"""

from pathlib import Path

import torch

from model.errors import ModelError
from model.hugging_face.files import read_model
from model.hugging_face.marian import from_marian
from model.transformer import Transformer
from trainer.errors import RunMismatchError
from trainer.zero.engine import Engine
from trainer.zero.fragments import MASTER, FragmentReader

# What a network computes does not depend on these.
_FREE = ("network", "dropout", "attention_dropout")


def marian_weights(folder: Path, engine: Engine) -> FragmentReader:
    """Reads the weights of the folder's network as fp32; moments are zero.

    Raises:
        ModelError: the folder has no network that can be read.
        RunMismatchError: it is not that of the engine.
    """
    theirs = from_marian(*read_model(folder))
    ours = engine.module
    if not isinstance(ours, Transformer):
        raise RunMismatchError(
            f"trainer.init_from: {folder} has an encoder-decoder, and the recipe's network is "
            f"{type(ours).__name__}: name a run of such a network"
        )
    _require_same_network(folder, ours, theirs)
    weights = {n: p.detach().float().flatten() for n, p in theirs.named_parameters()}
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ModelError(f"{folder} has NaN or an infinite weight in {name}: download it again")

    def read(kind: str, parameter: str, start: int, stop: int) -> torch.Tensor:
        return weights[parameter][start:stop] if kind == MASTER else torch.zeros(stop - start)

    return read


def _require_same_network(folder: Path, ours: Transformer, theirs: Transformer) -> None:
    values = [
        (f"model.{name}", getattr(ours.config, name), getattr(theirs.config, name))
        for name in type(theirs.config).model_fields
        if name not in _FREE
    ]
    values.append(("the vocabulary", ours.vocabulary, theirs.vocabulary))
    differences = [
        f"{name}: {here} in the recipe, {there} in {folder}"
        for name, here, there in values
        if here != there
    ]
    if differences:
        raise RunMismatchError(
            f"trainer.init_from: the network in {folder} is not that of the recipe: "
            f"{'; '.join(differences)}. Give the recipe its values: `transloom init --init-from` "
            "writes them"
        )
