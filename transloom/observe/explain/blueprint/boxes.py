"""What the figure of a network is made of: boxes in columns, from the input at the bottom up."""

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
    """A parameter of the network: its name there, and the shape in which it is stored."""

    name: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class Box(FileModel):
    """One operation.

    Attributes:
        key: names the box among all of a figure, such as `encoder.1.self_attention`.
        lines: what it does, with shapes, in short lines; t or s stand for the number of pieces, and
            m for that of the masked ones.
        weights: its own parameters, each of which no other box has.
        same_as: the key of the box whose matrix it uses, too.
        around: of a sum, the first box that its residual connection goes around.
        reads_memory: whether the memory enters here.
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


class Layer(FileModel):
    """One of a stack's layers; all of a stack have the same form and parameters of their own."""

    number: int
    boxes: tuple[Box, ...]


class Column(FileModel):
    """The way from pieces to what a stack gives.

    Attributes:
        before: boxes below the layers; `after`: those above.
    """

    name: str
    before: tuple[Box, ...]
    layers: tuple[Layer, ...]
    after: tuple[Box, ...]

    def boxes(self) -> Iterator[Box]:
        yield from self.before
        for layer in self.layers:
            yield from layer.boxes
        yield from self.after


class Blueprint(FileModel):
    """A network's figure.

    Attributes:
        columns: encoder and decoder, or one of them alone.
        parameters: the network's own count; the boxes' add up to it.
    """

    format: Literal[1] = 1
    title: str
    columns: tuple[Column, ...]
    parameters: int

    def boxes(self) -> Iterator[Box]:
        for column in self.columns:
            yield from column.boxes()
