"""Build the start of a page: the text, the model's output, and places that modules fill.

`walk/first_screen.js` draws the figure of the flow, and the box in which the reader types.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transloom.observe.explain.blueprint.boxes import Blueprint
from transloom.observe.explain.markup import escape, filled, page_file

NOTHING = "(nothing)"  # replaces an empty text


@dataclass(frozen=True)
class PageStart:
    """First section of a page, and the data from which the page's modules draw all others.

    Attributes:
        given, made: a label and a text.
        caption: text below the figure of the flow.
        layers: number of layers of the larger stack.
        data: facts about the model, and the recorded trace unless the page computes it.
        not_live: the reason why the reader cannot type a text, or None if the page contains the
            model; "" says nothing.
    """

    heading: str
    given: tuple[str, str]
    made: tuple[str, str]
    caption: str
    blueprint: Blueprint
    layers: int
    data: dict[str, Any]
    not_live: str | None = ""


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
    """Return the box to type in, or the reason why there is none."""
    if start.not_live is None:
        return filled(_LIVE_BOX, {"label": escape(start.given[0])})
    reason = f"This page shows only this text: {escape(start.not_live)}."
    return f'<p class="label">{reason}</p>' if start.not_live else ""


# The script shows it once the model can run.
_LIVE_BOX = (
    '<p data-first="typing" hidden><label for="first-sentence" class="label">{{label}}</label>'
    '<textarea id="first-sentence" data-first="sentence" rows="2" maxlength="1000" dir="auto" '
    'spellcheck="false"></textarea></p><p class="label" data-first="examples"></p>'
    '<p class="label" data-first="state" role="status"></p>'
)
