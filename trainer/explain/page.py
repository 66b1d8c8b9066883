"""From sections to one HTML file that needs nothing else: no network, no other file.

All text goes through `escape`, all numbers through JSON without `<`; style and scripts are
the files beside this one.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby

from data_pipeline.strangers_text import visible, visible_in
from trainer.explain.parts import (
    Bars,
    Beside,
    Colours,
    Fold,
    Heading,
    HeatMap,
    Part,
    Section,
    Table,
    Text,
    Tokens,
    number,
)

SCRIPTS = ("heat_map.js", "page.js")


@dataclass(frozen=True)
class LiveSection:
    """The section in which the model itself runs, as HTML, with its style and script."""

    html: str
    style: str
    script: str


def render(sections: Sequence[Section], title: str, live: LiveSection | None = None) -> str:
    """The whole page as HTML."""
    filling = {
        "title": escape(title),
        "style": _file("page.css"),
        "list": _list(sections),
        "sections": "\n".join(_section(n, section) for n, section in enumerate(sections, start=1)),
        "script": "\n".join(_file(name) for name in SCRIPTS),
    }
    filling |= _live(live)
    # Of scripts the browser runs these alone: what is not on the list is not the page's.
    filling["hashes"] = " ".join(_hash(filling[name]) for name in ("script", "live_script"))
    # In one pass: a text that contains {{style}} stays as it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filling[match[1]], _file("page.html"))


def _live(live: LiveSection | None) -> dict[str, str]:
    """Where a page without a live section has nothing, the browser finds nothing to run."""
    if live is None:
        return dict.fromkeys(("live", "live_link", "live_style", "live_script"), "")
    return {
        "live": live.html,
        "live_link": '<h2>Live</h2><ol><li><a href="#live">Your sentence</a></li></ol>',
        "live_style": live.style,
        "live_script": live.script,
    }


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _file(name: str) -> str:
    return (files("trainer.explain") / name).read_text(encoding="utf-8")


def _list(sections: Sequence[Section]) -> str:
    numbered = list(enumerate(sections, start=1))
    groups = []
    for group, members in groupby(numbered, key=lambda pair: pair[1].group):
        links = "".join(
            f'<li><a href="#section-{n}">{escape(section.name)}</a></li>' for n, section in members
        )
        groups.append(f"<h2>{escape(group)}</h2><ol>{links}</ol>")
    return "\n".join(groups)


def _section(n: int, section: Section) -> str:
    return (
        f'<section id="section-{n}"><h1>{escape(section.title)}</h1>'
        f'<p class="lead">{escape(section.lead)}</p>{_parts(section.parts)}</section>'
    )


def _parts(parts: Sequence[Part]) -> str:
    return "\n".join(_part(part) for part in parts)


def _part(part: Part) -> str:
    match part:
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Heading(text):
            return f'<h2 class="part">{escape(text)}</h2>'
        case Beside(parts):
            return f'<div class="beside">{_parts(parts)}</div>'
        case Fold(title, parts):
            return f"<details><summary>{escape(title)}</summary>{_parts(parts)}</details>"
        case Tokens():
            return _tokens(part)
        case Table():
            return _table(part)
        case Bars():
            return _bars(part)
        case HeatMap():
            return _heat_map(part)


def _tokens(tokens: Tokens) -> str:
    last = len(tokens.texts) - 1
    spans = [
        f'<span class="token{" new" if tokens.newest and n == last else ""}">{escape(text)}</span>'
        for n, text in enumerate(tokens.texts)
    ]
    arrow = "<i>→</i>"
    shown = (arrow if tokens.arrows else "").join(spans)
    if tokens.follows is not None:
        shown += f'{arrow}<span class="token follows">{escape(tokens.follows)}</span>'
    label = f'<span class="label">{escape(tokens.label)}</span>'
    return f'<div class="tokens">{label}{shown}</div>'


def _table(table: Table) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = "".join(
        f"<tr{' class=marked' if n == table.marked else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for n, row in enumerate(table.rows)
    )
    return f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"


def _bars(bars: Bars) -> str:
    header = "<tr><th>piece</th><th>probability</th><th></th><th>logit</th></tr>"
    rows = "".join(
        f'<tr{" class=chosen" if bar.chosen else ""} data-probability="{bar.probability:.6f}">'
        f"<td>{escape(bar.piece)}</td><td>{bar.probability:.2%}</td>"
        f'<td class="bar"><span style="width:{bar.probability:.2%}"></span></td>'
        f"<td>{number(bar.logit)}</td></tr>"
        for bar in bars.bars
    )
    return f'<table class="bars"><thead>{header}</thead><tbody>{rows}</tbody></table>'


def _heat_map(heat_map: HeatMap) -> str:
    numbers = [value for row in heat_map.values for value in row if value is not None]
    span = f"{number(min(numbers))} … {number(max(numbers))}"
    notes = [heat_map.shape, span if heat_map.colours is Colours.SIGNED else "", heat_map.cut]
    small = " · ".join(note for note in notes if note)
    labels = visible_in({"rows": heat_map.rows, "columns": heat_map.columns})
    data = {"values": heat_map.values, **labels}
    return (
        f'<figure class="map" data-colours="{heat_map.colours}">'
        f"<figcaption>{escape(heat_map.title)} <small>{escape(small)}</small></figcaption>"
        f'<canvas role="img" aria-label="{escape(heat_map.title)}, {escape(small)}"></canvas>'
        f'<script type="application/json">{_json(data)}</script></figure>'
    )


def escape(text: str) -> str:
    """A text as HTML, between tags or as an attribute, in which everything can be seen."""
    return html.escape(visible(text))


def _json(data: object) -> str:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
