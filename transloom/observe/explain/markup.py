"""Escape untrusted text for HTML or SVG."""

import html
import json
import re
import unicodedata
from collections.abc import Iterable

from foundation.untrusted_text import visible, visible_in_json


def escape(text: str) -> str:
    """Escape a text for markup or attributes, and make invisible characters visible."""
    return html.escape(visible(text))


def sentence(text: str) -> str:
    """Convert a sentence to HTML in which each quotation keeps its own writing direction."""
    return re.sub("“([^”]*)”", "“<bdi>\\1</bdi>”", escape(text))


def json_in_html(data: object) -> str:
    """Return data as JSON for a script element of the page."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return visible_in_json(text).replace("<", "\\u003c")


def is_right_to_left(texts: Iterable[str]) -> bool:
    """Return whether the first letter that has a direction is written from right to left."""
    directions = (unicodedata.bidirectional(character) for text in texts for character in text)
    strong = next((direction for direction in directions if direction in ("L", "R", "AL")), "L")
    return strong != "L"
