"""Create boxes from a network's parameters, so that each parameter belongs to exactly one box.

The text of a box about its matrices is derived from the parameters, so it is correct for all
options of a network. Shapes of matrices are given as in x · W: (in × out).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from model.config.layers import LayersConfig
from transloom.observe.explain.blueprint.boxes import Box, FigureLayer, Kind, Weight
from transloom.observe.explain.blueprint.forms import network_line, norm_title

Shapes = Mapping[str, tuple[int, ...]]
Config = TypeVar("Config", bound=LayersConfig)

# The paper's letters for the parameter names of the networks. Brackets contain matrices that are
# stored side by side in one parameter. The order is the order of computation.
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


def stack(count: int, layer: Callable[[int], Iterable[Box]]) -> tuple[FigureLayer, ...]:
    """Return the layers of a stack, whose boxes a function of the layer's index returns."""
    return tuple(FigureLayer(number=n + 1, boxes=tuple(layer(n))) for n in range(count))


class Parameters:
    """Parameters of a network, which boxes take one after another."""

    def __init__(self, shapes: Shapes) -> None:
        self._left = dict(shapes)
        self.total = sum(Weight(name=n, shape=s).count for n, s in shapes.items())

    def take(self, prefix: str) -> tuple[Weight, ...]:
        """Remove and return all parameters whose name is the prefix or begins with it."""
        names = [n for n in self._left if n == prefix or n.startswith(f"{prefix}.")]
        return tuple(Weight(name=name, shape=self._left.pop(name)) for name in names)

    def rest(self) -> list[Box]:
        """Return a box with the remaining parameters; an empty list if none is left."""
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
    """Return a box with lines about its matrices and, at the end, its number of parameters."""
    told = [*lines, *matrices(weights)]
    if kind not in ("ids", "sum", "memory", "softmax"):
        count = sum(weight.count for weight in weights)
        if count:
            told.append(f"{count:,} parameters")
        elif "same_as" not in more:
            told.append("no parameters")
    return Box(key=key, kind=kind, title=title, lines=tuple(told), weights=tuple(weights), **more)


def matrices(weights: Sequence[Weight]) -> list[str]:
    """Return one line per matrix, and one line for all vectors."""
    lines, norm, biases = [], [], []
    for weight in sorted(weights, key=_place):
        *_, owner, kind = ["", *weight.name.split(".")]
        if len(weight.shape) == 2:
            # A linear layer stores its matrix as (out × in); an embedding stores one row per piece.
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


class NetworkFigure(Generic[Config]):
    """Builder of a network's boxes, with a subclass for each kind of network.

    Attributes:
        vocabulary: number of pieces that the network predicts or reads.
    """

    def __init__(self, config: Config, shapes: Shapes, embedding: str) -> None:
        """Prepare the figure.

        Args:
            embedding: name of the embedding of the vocabulary.
        """
        self.config = config
        self.parameters = Parameters(shapes)
        self.vocabulary = shapes[f"{embedding}.weight"][0]

    def attention(
        self, key: str, prefix: str, name: str, title: str, lines: Sequence[str]
    ) -> list[Box]:
        """Return the boxes of a layer's attention.

        Args:
            key: key of the layer.
            prefix: name of the layer in the network.
            name: name of the attention in the layer.
        """
        weights = self.parameters.take(f"{prefix}.{name}")
        reads = name == "cross_attention"
        operation = box(f"{key}.{name}", "attention", title, lines, weights, reads_memory=reads)
        return self._sublayer(operation, f"{prefix}.{name}_norm")

    def feed_forward(self, key: str, prefix: str) -> list[Box]:
        """Return the boxes of a layer's feed-forward network; see `attention`."""
        lines = ["each row separately", network_line(self.config.activation)]
        weights = self.parameters.take(f"{prefix}.feed_forward")
        operation = box(f"{key}.feed_forward", "feed-forward", "Feed-forward", lines, weights)
        return self._sublayer(operation, f"{prefix}.feed_forward_norm")

    def norm(self, name: str, which: str, weights_name: str = "") -> Box:
        """Return the box of a norm outside the layers.

        Args:
            name: key of the box.
            weights_name: name of the norm in the network, unless it is the key.
        """
        weights = self.parameters.take(weights_name or name)
        return box(name, "norm", norm_title(self.config.norm_kind, which), [], weights)

    def output(
        self, part: str, weights: tuple[Weight, ...], owner: tuple[str, str] | None
    ) -> list[Box]:
        """Return the boxes of the output matrix and of the softmax.

        Args:
            part: beginning of the keys of both boxes.
            weights: the parameters that only these boxes have.
            owner: key and name of the box that owns the matrix; None if these boxes own it.
        """
        said = f"{dimensions((self.config.width, self.vocabulary))}: a logit for each piece"
        key, title = f"{part}.output", "Output matrix"
        if owner:
            matrix = same_as(key, "output", title, said, *owner, weights)
        else:
            matrix = box(key, "output", title, [said], weights)
        return [matrix, softmax(part, self.vocabulary)]

    def _sublayer(self, operation: Box, norm_name: str) -> list[Box]:
        """Return an operation, its norm before or after it, and the sum with its input."""
        key, what = operation.key, operation.title.lower()
        title = norm_title(self.config.norm_kind)
        norm = box(f"{key}_norm", "norm", title, [], self.parameters.take(norm_name))
        first = norm if self.config.pre_norm else operation
        total = Box(
            key=f"{key}.sum",
            kind="sum",
            title="Add",
            lines=(f"input + {what}",),
            around=first.key,
        )
        return [norm, operation, total] if self.config.pre_norm else [operation, total, norm]


def softmax(key: str, vocabulary: int) -> Box:
    """Return the softmax, the last box of a figure.

    Args:
        key: name of the part of the network whose output is the input of the softmax.
    """
    return box(f"{key}.softmax", "softmax", "Softmax", [f"{vocabulary:,} probabilities per row"])


def same_as(
    key: str,
    kind: Kind,
    title: str,
    said: str,
    other: str,
    name: str,
    weights: tuple[Weight, ...] = (),
) -> Box:
    """Return a box that uses the matrix of another box.

    Args:
        said: the first line of the box.
        other: key of the box that owns the matrix.
        name: name of that box in the text.
        weights: further parameters that only this box has, such as a bias.
    """
    lines = [said, f"same matrix as {name}", *([] if weights else ["0 more parameters"])]
    return box(key, kind, title, lines, weights, same_as=other)
