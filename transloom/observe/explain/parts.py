"""Data types of a page: a sequence of sections with texts, heat maps, bars and tables.

`encoder_sections` and similar modules fill the sections, and `page` renders them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from trainer.tasks.probe import Probe
from transloom.observe.explain.blueprint.boxes import Blueprint

MINUS = "\N{MINUS SIGN}"


def number(value: float, decimals: int = 2) -> str:
    """Format a number with a typographic minus sign; a number that rounds to zero has no sign."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


def percent(share: float) -> str:
    """Format a share as a percentage; only exactly 0 gives 0 %, and only exactly 1 gives 100 %."""
    if 0 < share < 0.00005:
        return "< 0.01%"
    if 0.99995 <= share < 1:
        return "> 99.99%"
    return f"{share:.2%}"


class Colours(StrEnum):
    """Colour scale of a heat map."""

    SIGNED = "signed"  # negative, zero, positive
    SHARE = "share"  # from 0 to 1


@dataclass(frozen=True)
class Text:
    """Paragraph of text."""

    text: str


@dataclass(frozen=True)
class HeatMap:
    """Matrix shown by colours; the page also shows the number under the pointer.

    Attributes:
        values: rounded numbers; None represents a masked position.
        rows, columns: a label for each row or column; None for columns numbered 0, 1, ….
        shape: shape of the whole matrix.
        cut: description of the part that `values` contains; "" if it is the whole matrix.
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
    """Pieces in reading order, and the piece that follows them.

    Attributes:
        newest: True to highlight the last of the pieces as new.
    """

    label: str
    texts: Sequence[str]
    newest: bool = False
    follows: str | None = None


@dataclass(frozen=True)
class Table:
    """Table of text.

    Attributes:
        marked: index of the highlighted row; None highlights no row.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: int | None = None


@dataclass(frozen=True)
class Bar:
    """Candidate for the next piece."""

    piece: str
    logit: float
    probability: float
    chosen: bool


@dataclass(frozen=True)
class Bars:
    """Bars of the candidates, in descending order of probability."""

    bars: Sequence[Bar]


@dataclass(frozen=True)
class Heading:
    """Title of the following parts of a section.

    Attributes:
        key: name for links to this heading, unique within the section; "" without links.
    """

    text: str
    key: str = ""


@dataclass(frozen=True)
class Beside:
    """Parts that are shown side by side."""

    parts: Sequence["Part"]


@dataclass(frozen=True)
class Fold:
    """Parts that are hidden until the reader opens them or follows a link to them.

    Attributes:
        key: see `Heading.key`.
    """

    title: str
    parts: Sequence["Part"]
    key: str = ""


@dataclass(frozen=True)
class Link:
    """Link to the part of the page that shows a box of the model's figure."""

    text: str
    box: str


@dataclass(frozen=True)
class Drawing:
    """Figure of the model, whose boxes link to the sections that show them."""

    blueprint: Blueprint
    each_layer: bool


@dataclass(frozen=True)
class Lapse:
    """Time-lapse of the training, with a slider that selects one step.

    Attributes:
        moments: the probes of each sentence in training order, each with the name of its step.
    """

    moments: Mapping[str, Sequence[tuple[str, Probe]]]


Part = Lapse | Drawing | Link | Text | HeatMap | Tokens | Table | Bars | Heading | Beside | Fold


@dataclass(frozen=True)
class FlowBox:
    """Box of the figure of the flow.

    Attributes:
        box: the key of a box of the model's figure; the link leads to the section that shows it.
        pieces: pieces that the box reads or predicts; None represents pieces that are left out.
        probability: the probability of the only piece, which is a prediction; None for input.
    """

    name: str
    text: str
    box: str
    pieces: Sequence[str | None] = ()
    probability: float | None = None


@dataclass(frozen=True)
class FirstScreen:
    """Start of a page: the text, the model's output for it, and the figure of the flow.

    Attributes:
        given, made: a label and a text.
    """

    given: tuple[str, str]
    made: tuple[str, str]
    boxes: Sequence[FlowBox]
    caption: str


@dataclass(frozen=True)
class Section:
    """Section of the page, about one stage of the model's computation.

    Attributes:
        group: name of a part of the model; adjacent sections of one group are listed together.
        name: a short name for the list of sections.
        lead: summary in one or two sentences.
        shows: the keys of the figure's boxes that this section shows, by the key of the heading or
            fold that contains them; "" for the whole section.
        of_the_sentence: True if the section is about the page's sentence.
        first_screen: the start of the page, between title and lead; only in the first section.
    """

    group: str
    name: str
    title: str
    lead: str
    parts: Sequence[Part]
    shows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    of_the_sentence: bool = True
    first_screen: FirstScreen | None = None
