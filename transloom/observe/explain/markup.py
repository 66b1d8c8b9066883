"""Text of strangers as HTML or SVG."""

import html
import json
import re
import unicodedata
from collections.abc import Iterable

from foundation.untrusted_text import visible, visible_in_json


def escape(text: str) -> str:
    """A text as markup, between tags or as an attribute, in which everything can be seen."""
    return html.escape(visible(text))


def sentence(text: str) -> str:
    """A sentence as HTML, in which what is quoted keeps its own direction, left or right."""
    return re.sub("“([^”]*)”", "“<bdi>\\1</bdi>”", escape(text))


def json_in_html(data: object) -> str:
    """Data for a script element of the page, which its scripts read as they are."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return visible_in_json(text).replace("<", "\\u003c")


def is_right_to_left(texts: Iterable[str]) -> bool:
    """Whether the first letter of texts that has a direction goes from right to left."""
    directions = (unicodedata.bidirectional(character) for text in texts for character in text)
    strong = next((direction for direction in directions if direction in ("L", "R", "AL")), "L")
    return strong != "L"
