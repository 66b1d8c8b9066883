"""Escape untrusted text for HTML or SVG."""

import html
import json

from foundation.untrusted_text import visible, visible_in_json


def escape(text: str) -> str:
    """Escape a text for markup or attributes, and make invisible characters visible."""
    return html.escape(visible(text))


def json_in_html(data: object) -> str:
    """Return data as JSON for a script element of the page."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return visible_in_json(text).replace("<", "\\u003c")
