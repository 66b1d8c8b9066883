"""Fill templates of pages, and escape untrusted text for HTML or SVG."""

import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files

from foundation.untrusted_text import visible, visible_in_json


def escape(text: str) -> str:
    """Escape a text for markup or attributes, and make invisible characters visible."""
    return html.escape(visible(text))


def json_in_html(data: object) -> str:
    """Return data as JSON for a script element of the page."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return visible_in_json(text).replace("<", "\\u003c")


def page_file(name: str) -> str:
    """Return the text of a file of this package, such as a template or a style sheet."""
    path = files("transloom.observe.explain").joinpath(*name.split("/"))
    return path.read_text(encoding="utf-8")


def filled(template: str, filling: Mapping[str, str]) -> str:
    """Replace each {{name}} of a template, in a single pass: texts may contain {{name}}, too."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filling[match[1]], template)
