"""The parts of a page: sections in a row, each with texts, heat maps, bars and tables.

They are plain data: `encoder_sections` and its neighbours fill the sections, and `page` draws them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from trainer.tasks.probe import Probe
from transloom.observe.explain.blueprint.boxes import Blueprint

MINUS = "\N{MINUS SIGN}"


def number(value: float, decimals: int = 2) -> str:
    """A number as text, with a real minus sign, and none before zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


def percent(share: float) -> str:
    """A share as a percentage, which is 0 only if the share is, and 100 only if all is."""
    if 0 < share < 0.00005:
        return "< 0.01%"
    if 0.99995 <= share < 1:
        return "> 99.99%"
    return f"{share:.2%}"


class Colours(StrEnum):
    """How a heat map colours its numbers."""

    SIGNED = "signed"  # negative, zero, positive
    SHARE = "share"  # from 0 to 1


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class HeatMap:
    """A matrix as colours; the number under the pointer is shown.

    Attributes:
        values: rounded numbers; None is a masked place.
        rows, columns: a label for each; None stands for dimensions 0, 1, ….
        shape: that of the whole matrix, of which `values` may be a part; `cut` says which.
    """

    title: str
    values: list[list[float | None]]
    rows: Sequence[str]
    columns: Sequence[str] | None
    colours: Colours
    shape: str
    cut: str = ""


@dataclass(frozen=True)
class Tokens:
    """Pieces in the order in which they are read, and the one that follows from them.

    Attributes:
        newest: whether the last one is new.
    """

    label: str
    texts: Sequence[str]
    newest: bool = False
    follows: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        marked: the row to look at.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: int | None = None


@dataclass(frozen=True)
class Bar:
    """A candidate for the next piece."""

    piece: str
    logit: float
    probability: float
    chosen: bool


@dataclass(frozen=True)
class Bars:
    """The candidates, most probable first."""

    bars: Sequence[Bar]


@dataclass(frozen=True)
class Heading:
    """The title of what follows in a section.

    Attributes:
        key: a name for links to it, one of its own in the section; "" if nothing leads here.
    """

    text: str
    key: str = ""


@dataclass(frozen=True)
class Beside:
    """Parts that stand beside each other."""

    parts: Sequence["Part"]


@dataclass(frozen=True)
class Fold:
    """Parts that are folded away until the reader opens them, or a link leads to them.

    Attributes:
        key: as of a heading.
    """

    title: str
    parts: Sequence["Part"]
    key: str = ""


@dataclass(frozen=True)
class Link:
    """Leads to the part of the page that shows a box of the model's figure."""

    text: str
    box: str


@dataclass(frozen=True)
class Drawing:
    """The figure of the model; its boxes lead to the sections that show them."""

    blueprint: Blueprint
    each_layer: bool


@dataclass(frozen=True)
class Lapse:
    """Moments of the training, of which a slider shows one at a time.

    Attributes:
        moments: for each sentence, in order; each with the name of its step.
    """

    moments: Mapping[str, Sequence[tuple[str, Probe]]]


Part = Lapse | Drawing | Link | Text | HeatMap | Tokens | Table | Bars | Heading | Beside | Fold


@dataclass(frozen=True)
class Section:
    """One step on the way through the model.

    Attributes:
        group: the part of the model it belongs to; neighbours of one group are listed together.
        name: a short name for the list of sections.
        lead: what happens here, in a sentence or two.
        shows: the boxes of the model's figure that are shown here, by the key of the heading or
            fold that has them; "" for the whole section.
        of_the_sentence: whether it is about the sentence for which the page is made.
    """

    group: str
    name: str
    title: str
    lead: str
    parts: Sequence[Part]
    shows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    of_the_sentence: bool = True
