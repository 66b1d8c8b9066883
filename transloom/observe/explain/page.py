"""Render sections as one HTML file, which needs no network and no other file.

All texts are escaped by `escape`, and JSON contains no `<`. The style sheets and scripts are files
of this package.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby

from transloom.observe.explain.first_screen import first_screen_markup
from transloom.observe.explain.markup import escape, sentence
from transloom.observe.explain.part_markup import PartMarkup
from transloom.observe.explain.parts import Section

STYLES = (
    "palette.css",
    "page.css",
    "first_screen.css",
    "blueprint/figure.css",
    "saving/saving.css",
    "time_lapse/lapse.css",
    "forced_colours.css",
)
SCRIPTS = (
    "elements.js",
    "heat_map.js",
    "cells.js",
    "saving/csv.js",
    "saving/matrices.js",
    "saving/saving.js",
    "time_lapse/lapse.js",
    "page.js",
)
# Ids of the sections with separate scripts, for links to them.
LIVE = "live"
COMPARE = "compare"


@dataclass(frozen=True)
class LiveSection:
    """Section with its own style and script: the live model, or the comparison of two models.

    These sections follow the first ordinary section. Their scripts are joined into one.

    Attributes:
        translations: of a comparison, the name and the translation of each model.
    """

    html: str
    style: str
    script: str
    translations: Sequence[tuple[str, str]] = ()


def render(
    sections: Sequence[Section],
    title: str,
    live: LiveSection | None = None,
    compare: LiveSection | None = None,
) -> str:
    """Return the whole page as HTML.

    Args:
        live: the section with the id `LIVE`.
        compare: the section with the id `COMPARE`.
    """
    given = ((LIVE, live, "Live", "Your sentence"), (COMPARE, compare, "Compare", "Two models"))
    own = [(place, section, group, name) for place, section, group, name in given if section]
    places = _places(sections) | {place: f"#{place}" for place, *_ in own}
    translations = compare.translations if compare else ()
    drawn = [
        _section(n, section, places, live is not None, translations)
        for n, section in enumerate(sections, start=1)
    ]
    groups = _groups(sections)
    drawn[1:1] = [section.html for _, section, _, _ in own]
    groups[1:1] = [_group(group, [_entry(place, name)]) for place, _, group, name in own]
    scripts = "\n".join(section.script for _, section, _, _ in own)
    filling = {
        "title": escape(title),
        "style": "\n".join(_file(name) for name in STYLES),
        "list": "\n".join(groups),
        "sections": "\n".join(drawn),
        "script": "\n".join(_file(name) for name in SCRIPTS),
        "live_style": "\n".join(section.style for _, section, _, _ in own),
        # A function prevents collisions with names in the page's other script. Without such
        # sections, this script is empty.
        "live_script": f"(() => {{\n{scripts}\n}})();" if scripts else "",
    }
    # The browser runs only scripts with these hashes, so it runs no script that was injected.
    filling["hashes"] = " ".join(_hash(filling[name]) for name in ("script", "live_script"))
    # A single pass leaves a text that contains {{style}} unchanged.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filling[match[1]], _file("page.html"))


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _file(name: str) -> str:
    return (files("transloom.observe.explain") / name).read_text(encoding="utf-8")


def _places(sections: Sequence[Section]) -> dict[str, str]:
    """Return the link to each box of the model's figure that a section shows, by the box's key."""
    return {
        box: f"#section-{n}-{key}" if key else f"#section-{n}"
        for n, section in enumerate(sections, start=1)
        for key, boxes in section.shows.items()
        for box in boxes
    }


def _groups(sections: Sequence[Section]) -> list[str]:
    """Return the list of sections as HTML, with one element per group."""
    numbered = list(enumerate(sections, start=1))
    return [
        _group(name, [_entry(f"section-{n}", section.name) for n, section in members])
        for name, members in groupby(numbered, key=lambda pair: pair[1].group)
    ]


def _group(name: str, entries: Sequence[str]) -> str:
    return f"<h2>{escape(name)}</h2><ol>{''.join(entries)}</ol>"


def _entry(place: str, name: str) -> str:
    return f'<li><a href="#{place}"><bdi>{escape(name)}</bdi></a></li>'


def _section(
    n: int,
    section: Section,
    places: dict[str, str],
    has_live_box: bool,
    translations: Sequence[tuple[str, str]],
) -> str:
    markup = PartMarkup(f"section-{n}", places)
    whose = "" if section.of_the_sentence else ' data-whose="own"'
    first = section.first_screen
    start = first_screen_markup(first, places, has_live_box, translations) if first else ""
    return (
        f'<section id="section-{n}" tabindex="-1"{whose}><h1>{sentence(section.title)}</h1>{start}'
        f'<p class="lead">{sentence(section.lead)}</p>{markup.parts(section.parts)}</section>'
    )
