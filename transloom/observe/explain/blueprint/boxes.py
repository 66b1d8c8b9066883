"""Data types of a network's figure: boxes in columns, from the input at the bottom upwards."""

import math
from collections.abc import Iterator
from typing import Literal

from foundation.file_model import FileModel

Kind = Literal[
    "ids",
    "embedding",
    "positions",
    "attention",
    "feed-forward",
    "norm",
    "sum",
    "memory",
    "output",
    "softmax",
    "other",
]


class Weight(FileModel):
    """Parameter of the network: its name in the network, and the shape in which it is stored."""

    name: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class Box(FileModel):
    """Box of the figure, for one operation.

    Attributes:
        key: unique name of the box in its figure, such as `encoder.1.self_attention`.
        lines: description of the operation, with shapes, in short lines. `t` or `s` is the number
            of pieces, and `m` is the number of masked or labelled pieces.
        weights: the parameters of this box; no other box has them.
        same_as: key of the box whose matrix this box also uses; None if it shares no matrix.
        around: for a sum, key of the first box that its residual connection bypasses.
        reads_memory: True if the encoder's output (the memory) is an input of this box.
    """

    key: str
    kind: Kind
    title: str
    lines: tuple[str, ...] = ()
    weights: tuple[Weight, ...] = ()
    same_as: str | None = None
    around: str | None = None
    reads_memory: bool = False

    @property
    def parameters(self) -> int:
        return sum(weight.count for weight in self.weights)


class FigureLayer(FileModel):
    """Layer of a stack. All layers of a stack have the same form, and separate parameters."""

    number: int
    boxes: tuple[Box, ...]


class FigureColumn(FileModel):
    """Column of the figure: one stack, from its pieces to its output.

    Attributes:
        before: boxes below the layers.
        after: boxes above the layers.
    """

    name: str
    before: tuple[Box, ...]
    layers: tuple[FigureLayer, ...]
    after: tuple[Box, ...]

    def boxes(self) -> Iterator[Box]:
        yield from self.before
        for layer in self.layers:
            yield from layer.boxes
        yield from self.after


class Blueprint(FileModel):
    """Figure of a network.

    Attributes:
        columns: encoder and decoder, or only one of them.
        parameters: the number of parameters of the network, which is the sum over the boxes.
    """

    format: Literal[1] = 1
    title: str
    columns: tuple[FigureColumn, ...]
    parameters: int

    def boxes(self) -> Iterator[Box]:
        for column in self.columns:
            yield from column.boxes()
