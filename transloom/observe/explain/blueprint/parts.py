"""How boxes are made of a network's parameters: each parameter is taken by one box.

What a box says of its matrices is read from the parameters themselves, so it is true whatever
options a network has. Matrices are told as x · W multiplies by them: (in × out).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transloom.observe.explain.blueprint.boxes import Box, Kind, Weight
from transloom.observe.explain.blueprint.forms import network_line, norm_title

Shapes = Mapping[str, tuple[int, ...]]

# The paper's letters for the networks' own names; in brackets, what stands side by side in one.
# In the order in which a row meets them.
LETTERS = {
    "query_key_value": "[Wq Wk Wv]",
    "query": "Wq",
    "key_value": "[Wk Wv]",
    "output": "Wo",
    "inner": "W₁",
    "gate_and_inner": "[W V]",
    "outer": "W₂",
    "dense": "W",
    "pooler": "W",
    "classifier": "W",
}
_ORDER = list(LETTERS)


class Parameters:
    """The parameters of a network, which boxes take one after another."""

    def __init__(self, shapes: Shapes) -> None:
        self._left = dict(shapes)
        self.total = sum(Weight(name=n, shape=s).count for n, s in shapes.items())

    def take(self, prefix: str) -> tuple[Weight, ...]:
        """All parameters of this name or below it; no other box gets them."""
        names = [n for n in self._left if n == prefix or n.startswith(f"{prefix}.")]
        return tuple(Weight(name=name, shape=self._left.pop(name)) for name in names)

    def rest(self) -> list[Box]:
        """A box with what nobody took; none if nothing is left."""
        weights = tuple(Weight(name=name, shape=shape) for name, shape in self._left.items())
        self._left.clear()
        if not weights:
            return []
        lines = tuple(f"{weight.name}: {dimensions(weight.shape)}" for weight in weights)
        return [Box(key="other", kind="other", title="Other", lines=lines, weights=weights)]


def dimensions(shape: Sequence[int | str]) -> str:
    return " × ".join(f"{size:,}" if isinstance(size, int) else size for size in shape)


def box(
    key: str,
    kind: Kind,
    title: str,
    lines: Sequence[str] = (),
    weights: Sequence[Weight] = (),
    **more: Any,
) -> Box:
    """A box that tells its matrices and, last, how many parameters it has."""
    told = [*lines, *matrices(weights)]
    if kind not in ("ids", "sum", "memory", "softmax"):
        count = sum(weight.count for weight in weights)
        if count:
            told.append(f"{count:,} parameters")
        elif "same_as" not in more:
            told.append("no parameters")
    return Box(key=key, kind=kind, title=title, lines=tuple(told), weights=tuple(weights), **more)


def matrices(weights: Sequence[Weight]) -> list[str]:
    """A line for each matrix, and one for the vectors."""
    lines, norm, biases = [], [], []
    for weight in sorted(weights, key=_place):
        *_, owner, kind = ["", *weight.name.split(".")]
        if len(weight.shape) == 2:
            # A linear layer stores its matrix as (out × in), an embedding a row for each piece.
            stored = weight.shape[::-1] if owner in LETTERS else weight.shape
            lines.append(f"{LETTERS.get(owner, 'matrix')}: {dimensions(stored)}")
        elif owner.endswith("norm"):
            norm.append(f"{'gain' if kind == 'weight' else 'shift'} {dimensions(weight.shape)}")
        else:
            biases.append(dimensions(weight.shape))
    if norm:
        lines.append(", ".join(norm))
    if biases:
        lines.append(f"biases: {' + '.join(biases)}")
    return lines


def _place(weight: Weight) -> int:
    owner = ["", *weight.name.split(".")][-2]
    return _ORDER.index(owner) if owner in _ORDER else -1


def sublayer(
    operation: Box, norm_kind: str, norm_weights: Sequence[Weight], norm_first: bool
) -> list[Box]:
    """An operation with its norm in the true place, and the sum of its residual connection."""
    key, what = operation.key, operation.title.lower()
    norm = box(f"{key}_norm", "norm", norm_title(norm_kind), [], norm_weights)
    first = norm if norm_first else operation
    total = Box(
        key=f"{key}.sum",
        kind="sum",
        title="Add",
        lines=(f"what went in + {what}",),
        around=first.key,
    )
    return [norm, operation, total] if norm_first else [operation, total, norm]


def feed_forward(key: str, activation: str, weights: Sequence[Weight]) -> Box:
    """The box of a layer's feed-forward network."""
    lines = ["each row alone", network_line(activation)]
    return box(f"{key}.feed_forward", "feed-forward", "Feed-forward", lines, weights)


def softmax(key: str, vocabulary: int) -> Box:
    """The last box of a figure; `key` names the part of the network that it ends."""
    return box(f"{key}.softmax", "softmax", "Softmax", [f"{vocabulary:,} probabilities a row"])


def same_as(
    key: str,
    kind: Kind,
    title: str,
    said: str,
    other: str,
    name: str,
    weights: tuple[Weight, ...] = (),
) -> Box:
    """A box that uses the matrix of another one, with what it has beside that (a bias)."""
    lines = [said, f"same matrix as {name}", *([] if weights else ["0 more parameters"])]
    return box(key, kind, title, lines, weights, same_as=other)
