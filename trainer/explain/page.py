"""From sections to one HTML file that needs nothing else: no network, no other file.

All text goes through `escape`, all numbers through JSON without `<`; style and scripts are
the files beside this one.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby

from trainer.explain.markup import escape, sentence
from trainer.explain.part_markup import PartMarkup
from trainer.explain.parts import Section

STYLES = ("palette.css", "page.css", "blueprint/figure.css", "time_lapse/lapse.css")
SCRIPTS = ("heat_map.js", "cells.js", "time_lapse/lapse.js", "page.js")
LIVE = "live"  # the place that the live section has, for links to it


@dataclass(frozen=True)
class LiveSection:
    """The section in which the model itself runs, as HTML, with its style and script.

    Its id is `LIVE`; it stands after the first of the other sections.
    """

    html: str
    style: str
    script: str


def render(sections: Sequence[Section], title: str, live: LiveSection | None = None) -> str:
    """The whole page as HTML."""
    places = _places(sections) | ({LIVE: f"#{LIVE}"} if live else {})
    drawn = [_section(n, section, places) for n, section in enumerate(sections, start=1)]
    groups = _groups(sections)
    if live is not None:
        drawn.insert(1, live.html)
        groups.insert(1, _group("Live", [_entry(LIVE, "Your sentence")]))
    filling = {
        "title": escape(title),
        "style": "\n".join(_file(name) for name in STYLES),
        "list": "\n".join(groups),
        "sections": "\n".join(drawn),
        "script": "\n".join(_file(name) for name in SCRIPTS),
        # Where a page has no live section, the browser finds nothing to run.
        "live_style": live.style if live else "",
        "live_script": live.script if live else "",
    }
    # Of scripts the browser runs these alone: what is not on the list is not the page's.
    filling["hashes"] = " ".join(_hash(filling[name]) for name in ("script", "live_script"))
    # In one pass: a text that contains {{style}} stays as it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filling[match[1]], _file("page.html"))


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _file(name: str) -> str:
    return (files("trainer.explain") / name).read_text(encoding="utf-8")


def _places(sections: Sequence[Section]) -> dict[str, str]:
    """The address of each box of the model's figure that a section shows, by the box's key."""
    return {
        box: f"#section-{n}-{key}" if key else f"#section-{n}"
        for n, section in enumerate(sections, start=1)
        for key, boxes in section.shows.items()
        for box in boxes
    }


def _groups(sections: Sequence[Section]) -> list[str]:
    """The list of sections, a part for each group."""
    numbered = list(enumerate(sections, start=1))
    return [
        _group(name, [_entry(f"section-{n}", section.name) for n, section in members])
        for name, members in groupby(numbered, key=lambda pair: pair[1].group)
    ]


def _group(name: str, entries: Sequence[str]) -> str:
    return f"<h2>{escape(name)}</h2><ol>{''.join(entries)}</ol>"


def _entry(place: str, name: str) -> str:
    return f'<li><a href="#{place}"><bdi>{escape(name)}</bdi></a></li>'


def _section(n: int, section: Section, places: dict[str, str]) -> str:
    markup = PartMarkup(f"section-{n}", places)
    return (
        f'<section id="section-{n}" tabindex="-1"><h1>{sentence(section.title)}</h1>'
        f'<p class="lead">{sentence(section.lead)}</p>{markup.parts(section.parts)}</section>'
    )
