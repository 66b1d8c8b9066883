"""Render a page as one HTML file, which needs no network and no other file.

All texts are escaped by `escape`, and JSON contains no `<`. The style sheets and modules are files
of this package and of `transloom.observe.drawing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from transloom.observe.drawing.modules import hash_source, joined_modules
from transloom.observe.explain.blueprint.boxes import Blueprint
from transloom.observe.explain.blueprint.drawing import svg_parts
from transloom.observe.explain.first_screen import PageStart, first_screen_markup
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
