"""Record a trace as data of a page, whose modules draw it like a trace of the page's own model.

tensors ─cut to what is drawn─▶ float32, packed like a model's weights
logits  ─▶ the candidates of each step
"""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.config.layers import LayersConfig
from transloom.observe.explain import limits
from transloom.observe.explain.blueprint.boxes import Blueprint
from transloom.observe.explain.blueprint.forms import NORMS, activation_name
from transloom.observe.explain.explanation import TracedPieces
from transloom.observe.explain.live.packing import encoded, planes_of

# Settings of a network's layers that affect the texts of a page.
_OF_LAYERS = ("width", "heads", "groups", "inner_width", "pre_norm", "norm_kind", "activation")


def model_facts(
    family: str,
    config: LayersConfig,
    blueprint: Blueprint,
    vocabulary_size: int,
    checkpoint: str,
) -> dict[str, Any]:
    """Return the facts about the model that the pages of all families show."""
    positions = getattr(config, "positions", "learned")
    turned = positions == "rotary"  # queries and keys are rotated according to their position
    boxes = list(blueprint.boxes())
    embedding = next(box for box in boxes if box.kind == "embedding" and box.weights)
    return {
        "family": family,
        "boxes": [box.key for box in boxes],
        "has_waves": positions == "sinusoidal",
        "dropout": f"{config.dropout:g}",
        "embedding_rows": embedding.weights[0].shape[0],
        "rotation_of_last_pair": f"{rotation_of_last_pair(config):.2g}" if turned else None,
        "stacks": [
            sum(box.parameters for layer in column.layers for box in layer.boxes)
            for column in blueprint.columns
        ],
        "layer_parameters": sum(box.parameters for box in blueprint.columns[0].layers[0].boxes),
        "form": {
            **{name: getattr(config, name) for name in _OF_LAYERS},
            "turned": turned,
            "has_biases": config.bias,
            "head_width": config.head_width,
            "norm": NORMS[config.norm_kind],
            "norm_label": "layer normalisation" if config.norm_kind == "layer" else "RMS norm",
            "bend": activation_name(config.activation),
            "is_gated": config.activation == "swiglu",
        },
        "limits": limits.as_dict(),
        "vocabulary_size": vocabulary_size,
        "parameters": blueprint.parameters,
        "checkpoint": checkpoint,
    }


def rotation_of_last_pair(config: Any) -> float:
    """Return the angle in radians by which a head's last pair of numbers turns per position.

    Source: Su et al. 2021, §3.2.2.
    """
    angle: float = config.rotary_base ** (2 / config.head_width - 1)
    return angle


def pieces_data(pieces: TracedPieces) -> dict[str, Any]:
    return {"ids": pieces.ids, "texts": pieces.texts}


def predictions(
    logits_tv: Tensor,
    probabilities_tv: Tensor,
    vocabulary: Sequence[str],
    followed_by: Sequence[int],
    never: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """Return the most probable pieces of each row, and always the piece that follows the row.

    Args:
        followed_by: for each row, the id of the piece that follows; −1 for the best piece.
        never: ids of pieces that cannot be the best one.
    """

    def candidate(t: int, piece: int) -> dict[str, Any]:
        return {
            "id": piece,
            "text": vocabulary[piece],
            "logit": logits_tv[t, piece].item(),
            "probability": probabilities_tv[t, piece].item(),
        }

    count = min(limits.MAX_CANDIDATES, probabilities_tv.shape[-1])
    allowed_tv = probabilities_tv.clone()
    allowed_tv[:, list(never)] = 0.0
    found = []
    for t, best in enumerate(allowed_tv.argmax(dim=-1).tolist()):
        ids = probabilities_tv[t].topk(count).indices.tolist()
        last = best if followed_by[t] < 0 else followed_by[t]
        shown = ids if last in ids else [*ids, last]
        found.append(
            {"candidates": [candidate(t, piece) for piece in shown], "best": candidate(t, best)}
        )
    return found


class RecordedTensors:
    """Collect the tensors of a trace, each once, cut to the rows and columns that are drawn."""

    def __init__(self) -> None:
        self._tensors: list[dict[str, Any]] = []
        self._numbers: list[np.ndarray[Any, Any]] = []
        self._indexes: dict[tuple[Any, ...], int] = {}

    def stack(self, stack: Any) -> dict[str, Any]:
        """Return the first layers of a stack, and the output of its last one as `last_tm`."""
        found: dict[str, Any] = self.tree(stack, {"layers": stack.layers[: limits.MAX_LAYERS]})
        last = stack.layers[-1].feed_forward_residual.output_btm
        return {**found, "last_tm": self.add(last, "last_btm")[1]}

    def tree(self, part: Any, overrides: dict[str, Any] | None = None) -> Any:
        """Return a part of a trace in which the index of each tensor replaces the tensor.

        Args:
            overrides: other values of some fields of the part.
        """
        if part is None:
            return None
        if isinstance(part, tuple):
            return [self.tree(one) for one in part]
        assert is_dataclass(part)
        found = {}
        for field in fields(part):
            value = (overrides or {}).get(field.name, getattr(part, field.name))
            if not isinstance(value, Tensor):
                found[field.name] = self.tree(value)
            elif field.name != "ids_bt":
                name, index = self.add(value, field.name)
                found[name] = index
        return found

    def add(self, values: Tensor, name: str) -> tuple[str, int]:
        """Store a tensor once, and return its name without the batch axis, and its index."""
        name, _, axes = name.rpartition("_")
        axes, values = (axes[1:], values[0]) if axes.startswith("b") else (axes, values)
        key = (values.data_ptr(), tuple(values.shape), values.stride())
        if key not in self._indexes:
            self._indexes[key] = len(self._tensors)
            self._keep(values.float().cpu(), name, axes)
        return f"{name}_{axes}", self._indexes[key]

    def packed(self) -> dict[str, Any]:
        """Return the shapes and the numbers of the collected tensors."""
        floats = np.concatenate(self._numbers)
        data = encoded(planes_of(floats))
        return {"tensors": self._tensors, "floats": len(floats), **data}

    def _keep(self, values: Tensor, name: str, axes: str) -> None:
        rows = limits.MAX_PIECES
        kept = values[..., : max(rows, limits.MAX_ATTENDED) if name == "weights" else rows, :]
        whole = False
        if axes.startswith("h"):
            kept = kept[: limits.MAX_HEADS]
            if not axes.endswith("s"):
                kept = kept[..., : max(1, limits.MAX_NUMBERS // len(kept))]
        else:
            kept = kept[..., : limits.MAX_NUMBERS]
            whole = kept.shape[-1] < values.shape[-1]
        self._tensors.append(
            {"shape": list(values.shape), "kept": list(kept.shape), "whole": whole}
        )
        numbers = [kept.flatten(), *([values[0]] if whole else [])]
        self._numbers.append(torch.cat(numbers).numpy())
