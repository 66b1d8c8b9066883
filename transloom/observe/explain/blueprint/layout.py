"""Compute the position of each box and line of a figure, in pixels, with y downwards.

Columns grow from the bottom up, as in the paper. Wide figures have encoder and decoder side by
side. Narrow figures, for a phone, have the decoder above the encoder. A column, from left to right:

    memory's gutter | frame ( box | residual's gutter ) | gutter of shared matrices
"""

from dataclasses import dataclass, field
from textwrap import wrap

from foundation.wording import counted
from transloom.observe.explain.blueprint.boxes import Blueprint, Box, FigureColumn

FONT_SIZE = 13
# Assumed width of a character in pixels. It is larger than the mean of every font in the figure's
# list.
CHARACTER = 7.6
LINE = 17
PADDING = 8
GAP = 16
FRAME = 10  # distance between a frame's edge and its contents
RESIDUAL = 30
MEMORY = 34
SHARED = 24
TITLE = 30
RADIUS = 11  # radius of the circle of a sum
ROUND = ("ids", "memory")

Point = tuple[float, float]


@dataclass(frozen=True)
class Placed:
    """Box with its position and its lines of text; a sum is a circle."""

    box: Box
    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        return self.x + self.width


@dataclass(frozen=True)
class Frame:
    """Frame around a layer, or around one layer that represents all.

    Attributes:
        label: number of the layer, and its number of parameters.
    """

    label: tuple[str, str]
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class FigureLine:
    """Line through some points; an arrow, unless it connects boxes with a shared matrix."""

    kind: str  # one of: flow, residual, memory, shared
    points: tuple[Point, ...]


@dataclass
class FigureLayout:
    """All shapes of a drawing, and the width and height that contain them."""

    width: float = 0
    height: float = 0
    boxes: dict[str, Placed] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    connections: list[FigureLine] = field(default_factory=list)
    titles: list[tuple[Point, str]] = field(default_factory=list)


def lay_out(blueprint: Blueprint, *, narrow: bool, each_layer: bool) -> FigureLayout:
    """Return the layout of a figure.

    Args:
        narrow: True for one column, for a phone.
        each_layer: True to draw every layer; False to draw one layer that represents all.
    """
    layout = FigureLayout()
    stacked = narrow or len(blueprint.columns) == 1
    box_width = 226 if narrow else 270
    column_width = MEMORY + 2 * FRAME + box_width + RESIDUAL + SHARED
    y = 0.0
    for number, column in enumerate(blueprint.columns):
        x = MEMORY + (0 if stacked else number * column_width)
        builder = _Builder(layout, column, x, box_width, each_layer)
        top = builder.build(y if stacked else 0.0)
        y = min(y, top) if not stacked else top - TITLE
    layout.width = column_width * (1 if stacked else len(blueprint.columns))
    _memory_lines(layout, stacked)
    _shared_lines(layout, stacked)
    return _moved(layout, -min(point[1] for point, _ in layout.titles) + LINE + 4)


class _Builder:
    """Builder of a column, which places boxes above one another."""

    def __init__(
        self,
        layout: FigureLayout,
        column: FigureColumn,
        x: float,
        box_width: float,
        each_layer: bool,
    ) -> None:
        self._layout = layout
        self._column = column
        self._x = x  # left edge of the frames
        self._box_width = box_width
        self._each_layer = each_layer
        self._frame_width = 2 * FRAME + box_width + RESIDUAL
        self._y = 0.0
        self._came_from: Point | None = None

    def build(self, bottom: float) -> float:
        """Place all boxes of the column, and return the y of its top."""
        self._y = bottom
        for box in self._column.before:
            self._put(box)
        for number, label in self._labels():
            self._layer(number, label)
        for box in self._column.after:
            self._put(box)
        in_layers = sum(box.parameters for layer in self._column.layers for box in layer.boxes)
        self._y -= GAP
        text = f"{self._column.name}: {in_layers:,} parameters in layers"
        self._layout.titles.append(((self._x + FRAME, self._y), text))
        return self._y - LINE

    def _labels(self) -> list[tuple[int, tuple[str, str]]]:
        """Return the drawn layers, each with the left and the right label of its frame."""
        layers = self._column.layers
        own = f"{sum(box.parameters for box in layers[0].boxes):,}"
        if self._each_layer or len(layers) == 1:
            return [(n, (f"layer {n + 1} of {len(layers)}", own)) for n in range(len(layers))]
        return [(0, (f"{len(layers)} × layer", f"{own} each"))]

    def _layer(self, number: int, label: tuple[str, str]) -> None:
        boxes = self._column.layers[number].boxes
        self._y -= GAP
        bottom = self._y
        before: dict[str, Point] = {}
        for box in boxes:
            before[box.key] = (self._centre, self._y - GAP / 2)
            self._put(box)
            if box.around is not None:
                self._residual(before[box.around], self._layout.boxes[box.key])
        self._y -= FRAME + LINE + 4
        frame = Frame(label, self._x, self._y, self._frame_width, bottom - self._y)
        self._layout.frames.append(frame)

    @property
    def _centre(self) -> float:
        return self._x + FRAME + self._box_width / 2

    def _put(self, box: Box) -> None:
        if box.kind == "sum":
            placed = self._circle(box)
        else:
            lines = [box.title, *(line for text in box.lines for line in self._broken(text))]
            height = 2 * PADDING + LINE * len(lines)
            place = (self._x + FRAME, self._y - GAP - height)
            placed = Placed(box, *place, self._box_width, height, tuple(lines))
        if self._came_from is not None:
            end = (self._centre, placed.y + placed.height)
            self._layout.connections.append(FigureLine("flow", (self._came_from, end)))
        self._came_from = (self._centre, placed.y)
        self._y = placed.y
        self._layout.boxes[box.key] = placed

    def _circle(self, box: Box) -> Placed:
        place = (self._centre - RADIUS, self._y - GAP - 2 * RADIUS)
        return Placed(box, *place, 2 * RADIUS, 2 * RADIUS, ("+",))

    def _broken(self, text: str) -> list[str]:
        return wrap(text, int((self._box_width - 2 * PADDING) / CHARACTER), break_long_words=True)

    def _residual(self, start: Point, total: Placed) -> None:
        gutter = self._x + FRAME + self._box_width + RESIDUAL / 2
        corners = (start, (gutter, start[1]), (gutter, total.middle), (total.right, total.middle))
        self._layout.connections.append(FigureLine("residual", corners))


def _memory_lines(layout: FigureLayout, stacked: bool) -> None:
    """Add lines from the encoder's output to every layer that reads it."""
    memory = layout.boxes.get("encoder.memory")
    readers = [placed for placed in layout.boxes.values() if placed.box.reads_memory]
    for reader in readers if memory else ():
        gutter = reader.x - FRAME - MEMORY / 2
        start = (memory.x if stacked else memory.right, memory.middle)  # type: ignore[union-attr]
        corners = (start, (gutter, start[1]), (gutter, reader.middle), (reader.x, reader.middle))
        layout.connections.append(FigureLine("memory", corners))


def _shared_lines(layout: FigureLayout, stacked: bool) -> None:
    """Add lines between boxes that share a matrix."""
    for placed in [*layout.boxes.values()]:
        if placed.box.same_as is None:
            continue
        owner = layout.boxes[placed.box.same_as]
        if not stacked and placed.x < owner.x:  # both boxes are at the bottom, next to each other
            turn, end = owner.x - FRAME - MEMORY / 2, owner.x
        else:
            turn, end = owner.right + RESIDUAL + FRAME + SHARED / 2, owner.right
        corners = (
            (placed.right, placed.middle),
            (turn, placed.middle),
            (turn, owner.middle),
            (end, owner.middle),
        )
        layout.connections.append(FigureLine("shared", corners))


def _moved(layout: FigureLayout, down: float) -> FigureLayout:
    """Return the layout with its top at y = 0.

    Args:
        down: distance by which everything is moved down.
    """

    def move(point: Point) -> Point:
        return point[0], point[1] + down

    bottom = max(placed.y + placed.height for placed in layout.boxes.values())
    return FigureLayout(
        width=layout.width,
        height=bottom + down + PADDING,
        boxes={
            key: Placed(p.box, p.x, p.y + down, p.width, p.height, p.lines)
            for key, p in layout.boxes.items()
        },
        frames=[Frame(f.label, f.x, f.y + down, f.width, f.height) for f in layout.frames],
        connections=[
            FigureLine(line.kind, tuple(map(move, line.points))) for line in layout.connections
        ],
        titles=[(move(point), text) for point, text in layout.titles],
    )


def described(blueprint: Blueprint) -> str:
    """Describe the figure in words for screen readers, with one sentence per column."""
    sentences = [f"{blueprint.parameters:,} parameters in all."]
    for column in blueprint.columns:
        way = ", ".join(box.title.lower() for box in column.layers[0].boxes)
        layers = counted(len(column.layers), "layer")
        sentences.append(f"{column.name}, from the bottom up: {layers}, each with {way}.")
    if len(blueprint.columns) > 1:
        sentences.append("The memory enters the cross-attention of every decoder layer.")
    sentences.append(
        "s and t are numbers of pieces. A dashed line connects boxes that share a matrix."
    )
    return " ".join(sentences)
