"""What a page is made of: sections in a row, each with texts, heat maps, bars and tables.

Plain data: the sections are filled by `encoder_sections` and its neighbours, and drawn by `page`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MINUS = "\N{MINUS SIGN}"


def number(value: float, decimals: int = 2) -> str:
    """For texts: with a real minus sign, and none before zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


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
    """A matrix as colours; the numbers are shown where one points.

    Attributes:
        values: rounded; None is a masked place.
        rows, columns: a label for each; no column labels stands for dimensions 0, 1, ….
        shape: of the whole matrix, of which `values` may be a part; `cut` says which.
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
    """Pieces in a row, the last of which may be new, and the one that follows from them.

    With ``arrows``, each leads to the next.
    """

    label: str
    texts: Sequence[str]
    newest: bool = False
    follows: str | None = None
    arrows: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text; `marked` is the row to look at."""

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
    """The title of what follows in a section."""

    text: str


@dataclass(frozen=True)
class Beside:
    """Parts that stand beside each other."""

    parts: Sequence["Part"]


@dataclass(frozen=True)
class Fold:
    """Parts that are folded away until they are asked for."""

    title: str
    parts: Sequence["Part"]


Part = Text | HeatMap | Tokens | Table | Bars | Heading | Beside | Fold


@dataclass(frozen=True)
class Section:
    """One step of the way.

    Attributes:
        group: the part of the model it belongs to; neighbours of one group are listed together.
        name: short, for the list of sections.
        lead: what happens here, in a sentence or two.
    """

    group: str
    name: str
    title: str
    lead: str
    parts: Sequence[Part]
