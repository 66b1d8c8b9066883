"""Convert each kind of part to HTML."""

from collections.abc import Mapping, Sequence

from foundation.untrusted_text import visible_in
from transloom.observe.explain.blueprint.boxes import Blueprint
from transloom.observe.explain.blueprint.drawing import svg_parts
from transloom.observe.explain.markup import escape, is_right_to_left, json_in_html, sentence
from transloom.observe.explain.parts import (
    Bars,
    Beside,
    Drawing,
    Fold,
    Heading,
    HeatMap,
    Lapse,
    Link,
    Part,
    Table,
    Text,
    Tokens,
    number,
    percent,
)
from transloom.observe.explain.time_lapse.markup import lapse_markup


class PartMarkup:
    """Writer of the parts of one section as HTML.

    Args:
        section: the id of the section.
        places: links to the parts of the page that show a box of the figure, by the box's key.
    """

    def __init__(self, section: str, places: Mapping[str, str]) -> None:
        self._section = section
        self._places = places

    def parts(self, parts: Sequence[Part]) -> str:
        return "\n".join(self.part(part) for part in parts)

    def part(self, part: Part) -> str:
        match part:
            case Text(text):
                return f"<p>{sentence(text)}</p>"
            case Heading(text, key):
                return f'<h2 class="part"{self._id(key)}>{sentence(text)}</h2>'
            case Beside(parts):
                return f'<div class="beside">{self.parts(parts)}</div>'
            case Fold(title, parts, key):
                inside = f"<summary>{sentence(title)}</summary>{self.parts(parts)}"
                return f"<details{self._id(key)}>{inside}</details>"
            case Drawing(blueprint, each_layer):
                drawn = svg_parts(blueprint, self._places, each_layer=each_layer)
                return drawn + _boxes(blueprint)
            case Link(text, box):
                place = self._places.get(box)
                return f'<p><a href="{escape(place)}">{escape(text)}</a></p>' if place else ""
            case Tokens():
                return _tokens(part)
            case Table():
                return _table(part)
            case Bars():
                return _bars(part)
            case HeatMap():
                return _heat_map(part)
            case Lapse():
                return lapse_markup(part, _heat_map)

    def _id(self, key: str) -> str:
        return f' id="{self._section}-{escape(key)}"' if key else ""


def _boxes(blueprint: Blueprint) -> str:
    """Return all boxes of a figure as table rows for saving.js."""
    rows = [
        ["box", "name", "shapes", "parameters"],
        *([box.key, box.title, "; ".join(box.lines), box.parameters] for box in blueprint.boxes()),
        ["all", blueprint.title, "", blueprint.parameters],
    ]
    return f'<div class="saved" data-boxes="{escape(json_in_html(rows))}"></div>'


def _tokens(tokens: Tokens) -> str:
    """Return pieces as HTML in the direction of their script.

    Each piece is isolated, because the character ▁ has no direction.
    """
    last = len(tokens.texts) - 1
    shown = "".join(
        f'<bdi class="token{" new" if tokens.newest and n == last else ""}">{escape(text)}</bdi>'
        for n, text in enumerate(tokens.texts)
    )
    turned = is_right_to_left(tokens.texts)
    if tokens.follows is not None:
        arrow = "←" if turned else "→"
        shown += f'<i>{arrow}</i><bdi class="token follows">{escape(tokens.follows)}</bdi>'
    label = f'<span class="label">{escape(tokens.label)}</span>'
    direction = ' dir="rtl"' if turned else ""
    return f'<div class="tokens">{label}<div class="row"{direction}>{shown}</div></div>'


def _table(table: Table) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = "".join(
        f"<tr{' class=marked' if n == table.marked else ''}>"
        + "".join(f"<td><bdi>{escape(cell)}</bdi></td>" for cell in row)
        + "</tr>"
        for n, row in enumerate(table.rows)
    )
    return f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"


def _bars(bars: Bars) -> str:
    header = "<tr><th>piece</th><th>probability</th><td></td><th>logit</th></tr>"
    rows = "".join(
        f'<tr{" class=chosen" if bar.chosen else ""} data-probability="{bar.probability:.6f}">'
        f"<td><bdi>{escape(bar.piece)}</bdi></td><td>{escape(percent(bar.probability))}</td>"
        f'<td class="bar"><span style="width:{bar.probability:.2%}"></span></td>'
        f"<td>{number(bar.logit)}</td></tr>"
        for bar in bars.bars
    )
    return f'<table class="bars"><thead>{header}</thead><tbody>{rows}</tbody></table>'


def _heat_map(heat_map: HeatMap) -> str:
    small = " · ".join(note for note in (heat_map.shape, heat_map.cut) if note)
    labels = visible_in({"rows": heat_map.rows, "columns": heat_map.columns})
    data = {"values": heat_map.values, **labels}
    size = f'aria-rowcount="{len(heat_map.values)}" aria-colcount="{len(heat_map.values[0])}"'
    # cells.js replaces this row by the current row; until then, it explains the keys.
    row = '<span role="row"><span role="gridcell">arrow keys move between cells</span></span>'
    grid = (
        f'<div class="grid" role="grid" tabindex="0" {size} '
        f'aria-label="{escape(heat_map.title)}, {escape(small)}">'
        f'<canvas aria-hidden="true"></canvas><i class="frame" aria-hidden="true" hidden></i>'
        f'<div class="visited">{row}</div></div>'
    )
    caption = f"{escape(heat_map.title)} <small>{escape(small)}</small>"
    return (
        f'<figure class="map" data-colours="{heat_map.colours}">'
        f'<figcaption>{caption}<small class="scale"></small></figcaption>{grid}'
        f'<script type="application/json">{json_in_html(data)}</script></figure>'
    )
