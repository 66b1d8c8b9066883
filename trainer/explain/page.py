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

STYLES = ("palette.css", "page.css", "blueprint/figure.css")
SCRIPTS = ("heat_map.js", "cells.js", "page.js")


@dataclass(frozen=True)
class LiveSection:
    """The section in which the model itself runs, as HTML, with its style and script."""

    html: str
    style: str
    script: str


def render(sections: Sequence[Section], title: str, live: LiveSection | None = None) -> str:
    """The whole page as HTML."""
    places = _places(sections)
    filling = {
        "title": escape(title),
        "style": "\n".join(_file(name) for name in STYLES),
        "list": _list(sections),
        "sections": "\n".join(
            _section(n, section, places) for n, section in enumerate(sections, start=1)
        ),
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


def _places(sections: Sequence[Section]) -> dict[str, str]:
    """The address of each box of the model's figure that a section shows, by the box's key."""
    return {
        box: f"#section-{n}-{key}" if key else f"#section-{n}"
        for n, section in enumerate(sections, start=1)
        for key, boxes in section.shows.items()
        for box in boxes
    }


def _list(sections: Sequence[Section]) -> str:
    numbered = list(enumerate(sections, start=1))
    groups = []
    for group, members in groupby(numbered, key=lambda pair: pair[1].group):
        links = "".join(
            f'<li><a href="#section-{n}"><bdi>{escape(section.name)}</bdi></a></li>'
            for n, section in members
        )
        groups.append(f"<h2>{escape(group)}</h2><ol>{links}</ol>")
    return "\n".join(groups)


def _section(n: int, section: Section, places: dict[str, str]) -> str:
    markup = PartMarkup(f"section-{n}", places)
    return (
        f'<section id="section-{n}" tabindex="-1"><h1>{sentence(section.title)}</h1>'
        f'<p class="lead">{sentence(section.lead)}</p>{markup.parts(section.parts)}</section>'
    )
