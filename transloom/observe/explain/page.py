"""Render a page as one HTML file, which needs no network and no other file.

All texts are escaped by `escape`, and JSON contains no `<`. The style sheets and modules are files
of this package and of `transloom.observe.drawing`. `walk/first_screen.js` draws the figure of the
flow, and the box in which the reader types.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from transloom.observe.drawing.modules import hash_source, joined_modules
from transloom.observe.explain.blueprint.boxes import Blueprint
from transloom.observe.explain.blueprint.drawing import svg_parts
from transloom.observe.explain.limits import LAYERS_DRAWN
from transloom.observe.explain.markup import escape, filled, json_in_html, page_file

STYLES = (
    "palette.css",
    "page.css",
    "first_screen.css",
    "blueprint/figure.css",
    "../drawing/saving.css",
    "time_lapse/lapse.css",
    "forced_colours.css",
)
MODULES = ("drawing/cells.js", "explain/page.js", "explain/walk/walk.js")
# Ids of the sections with separate scripts, for links to them.
LIVE = "live"
COMPARE = "compare"
NOTHING = "(nothing)"  # shown instead of an empty text


@dataclass(frozen=True)
class PageStart:
    """First section of a page, and the data from which the page's modules draw all others.

    Attributes:
        given, made: a label and a text.
        caption: text below the figure of the flow.
        layers: number of layers of the larger stack.
        data: facts about the model, and the recorded trace unless the page computes it.
        not_live: the reason why the reader cannot type a text, or None if the page contains the
            model; with "", the page gives no reason.
    """

    heading: str
    given: tuple[str, str]
    made: tuple[str, str]
    caption: str
    blueprint: Blueprint
    layers: int
    data: dict[str, Any]
    not_live: str | None = ""


@dataclass(frozen=True)
class PageSection:
    """Section with its own module: the live model, the comparison of two models, the time-lapse.

    Attributes:
        module: path of the JavaScript module that fills the section.
        translations: of a comparison, the name and the translation of each model.
    """

    html: str
    module: str
    style: str = ""
    translations: Sequence[tuple[str, str]] = ()


def render(
    start: PageStart,
    title: str,
    sections: Sequence[PageSection] = (),
    last: PageSection | None = None,
) -> str:
    """Return the whole page as HTML.

    Args:
        sections: sections that follow the first one; then the page's modules draw others.
        last: section after those that the modules draw.
    """
    own = [*sections, *([last] if last else [])]
    translations = [one for section in own for one in section.translations]
    script = joined_modules(
        files("transloom.observe"), *MODULES, *(section.module for section in own)
    )
    filling = {
        "title": escape(title),
        "style": "\n".join(page_file(name) for name in STYLES),
        "section_style": "\n".join(section.style for section in own),
        "first_screen": first_screen_markup(start, translations),
        "figure": _figure(start.blueprint, start.layers),
        "data": json_in_html(start.data),
        "sections": "\n".join(section.html for section in sections),
        "last": last.html if last else "",
        # The browser runs only the script with this hash, so it runs no script that was injected.
        "hash": hash_source(script),
        "script": script,
    }
    return filled(page_file("page.html"), filling)


def _figure(blueprint: Blueprint, layers: int) -> str:
    """Return the model's figure, whose boxes lead to `#box-KEY`, and its boxes for saving.js."""
    places = {box.key: f"#box-{box.key}" for box in blueprint.boxes()}
    rows = [
        ["box", "name", "shapes", "parameters"],
        *([box.key, box.title, "; ".join(box.lines), box.parameters] for box in blueprint.boxes()),
        ["all", blueprint.title, "", blueprint.parameters],
    ]
    drawn = svg_parts(blueprint, places, each_layer=layers <= LAYERS_DRAWN)
    return f'{drawn}<div class="saved" data-boxes="{escape(json_in_html(rows))}"></div>'


def first_screen_markup(start: PageStart, translations: Sequence[tuple[str, str]] = ()) -> str:
    """Return the first screen as HTML.

    Args:
        translations: the name and the translation of each model, if the page compares two models.
    """
    label, text = start.made
    (name, _), *others = translations or [("", "")]
    filling = {
        "heading": escape(start.heading),
        "given_label": escape(start.given[0]),
        "given": escape(start.given[1] or NOTHING),
        "live": _below_the_text(start),
        "made_label": escape(f"{label} by {name}" if name else label),
        "made": escape(text or NOTHING),
        "others": "".join(
            f'<p data-first="other"><a class="label" href="#compare">'
            f'{escape(f"{label} by {other}")}</a> <span class="text" dir="auto">'
            f"{escape(translation or NOTHING)}</span></p>"
            for other, translation in others
        ),
        "caption": escape(f"{start.caption} Choose a box to see its numbers.".strip()),
    }
    return filled(page_file("first_screen.html"), filling)


def _below_the_text(start: PageStart) -> str:
    """Return the text box of the reader, or the reason why the page has no text box."""
    if start.not_live is None:
        return filled(_LIVE_BOX, {"label": escape(start.given[0])})
    reason = f"This page shows only this text: {escape(start.not_live)}."
    return f'<p class="label">{reason}</p>' if start.not_live else ""


# Hidden until the script has loaded the model.
_LIVE_BOX = (
    '<p data-first="typing" hidden><label for="first-sentence" class="label">{{label}}</label>'
    '<textarea id="first-sentence" data-first="sentence" rows="2" maxlength="1000" dir="auto" '
    'spellcheck="false"></textarea></p><p class="label" data-first="examples"></p>'
    '<p class="label" data-first="state" role="status"></p>'
)
