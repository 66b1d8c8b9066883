"""Bundle the dashboard's page as one HTML file, which can be opened from disk without a network.

::

    page/index.html ─┬─ its style sheets and scripts, inlined
                     ├─ its modules, joined into one script
                     ├─ the server's responses, as JSON in <script id="frozen">
                     └─ a content security policy that allows only these, by their sha256

The bundle contains the same JavaScript modules as the live page, joined by
`transloom.observe.drawing.modules`.
"""

import base64
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from foundation.shown_urls import with_urls
from transloom.observe.drawing.modules import DRAWING, hash_source, joined_modules

PAGE: Traversable = files("transloom.observe.dashboard") / "page"

_STYLE = re.compile(r'<link rel="stylesheet" href="static/([\w./-]+)">')
_SCRIPT = re.compile(r'<script src="static/([\w./-]+)" (?:defer|type="(module)")></script>')


def one_file(answers: Mapping[str, Any]) -> str:
    """Return the page as one HTML text that contains the server's responses.

    Args:
        answers: the responses by request path.
    """
    hashes: dict[str, list[str]] = {"script-src": [], "style-src": []}

    def script(found: re.Match[str]) -> str:
        name, is_module = found[1], found[2] is not None
        text = joined_modules(PAGE, name, shared={"drawing": DRAWING}) if is_module else _read(name)
        hashes["script-src"].append(hash_source(text))
        return f'<script type="module">{text}</script>' if is_module else f"<script>{text}</script>"

    def style(found: re.Match[str]) -> str:
        text = _read(found[1])
        hashes["style-src"].append(hash_source(text))
        return f"<style>{text}</style>"

    icon = base64.b64encode((PAGE / "icon.svg").read_bytes()).decode()
    page = _SCRIPT.sub(script, _STYLE.sub(style, _read("index.html")))
    page = page.replace('href="static/icon.svg"', f'href="data:image/svg+xml;base64,{icon}"')
    rules = "; ".join(f"{kind} {' '.join(found)}" for kind, found in hashes.items())
    policy = f"default-src 'none'; {rules}; img-src data:; base-uri 'none'; form-action 'none'"
    page = page.replace(
        '<meta charset="utf-8">',
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
    )
    data = f'<script type="application/json" id="frozen">{_json(answers)}</script>\n</body>'
    return data.join(page.rsplit("</body>", 1))


def _read(name: str) -> str:
    text = (PAGE / name).read_text(encoding="utf-8")
    assert "</script" not in text or name.endswith(".html"), f"{name} would end its own script"
    return text


def _json(answers: Mapping[str, Any]) -> str:
    """Return JSON that cannot end the script element that contains it."""
    text = json.dumps(answers, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = with_urls(text)
    return text.replace("<", "\\u003c")
