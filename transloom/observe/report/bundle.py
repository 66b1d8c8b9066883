"""Bundle the dashboard's page as one HTML file, which can be opened from disk without a network.

::

    page/index.html ─┬─ its style sheets and scripts, inlined
                     ├─ its modules, joined into one script
                     ├─ the server's responses, as JSON in <script id="frozen">
                     └─ a content security policy that allows only these, by their sha256

The bundle contains the same JavaScript modules as the live page. Each module becomes a function
that returns the module's exports. A module's function follows those of the modules that it imports.
Regular expressions find imports and exports: each must start a line and have one of the three forms
below.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from foundation.shown_urls import with_urls

PAGE: Traversable = files("transloom.observe.dashboard") / "page"

# Supported forms of imports and exports:
#   import { a, b } from "./x.js";
#   import * as x from "./x.js";
#   export function a, export async function a, export class a, export const a
_IMPORT = re.compile(r'^import (\{[^}]*\}|\* as \w+) from "\./([\w.]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_STYLE = re.compile(r'<link rel="stylesheet" href="static/([\w./-]+)">')
_SCRIPT = re.compile(r'<script src="static/([\w./-]+)" (?:defer|type="(module)")></script>')
_ICON = re.compile(r'href="static/icon\.svg"')


def one_file(answers: Mapping[str, Any]) -> str:
    """Return the page as one HTML text that contains the server's responses.

    Args:
        answers: the responses by request path.
    """
    hashes: dict[str, list[str]] = {"script-src": [], "style-src": []}

    def script(found: re.Match[str]) -> str:
        name, is_module = found[1], found[2] is not None
        text = joined_modules(name) if is_module else _read(name)
        hashes["script-src"].append(_hash(text))
        return f'<script type="module">{text}</script>' if is_module else f"<script>{text}</script>"

    def style(found: re.Match[str]) -> str:
        text = _read(found[1])
        hashes["style-src"].append(_hash(text))
        return f"<style>{text}</style>"

    icon = base64.b64encode((PAGE / "icon.svg").read_bytes()).decode()
    page = _SCRIPT.sub(script, _STYLE.sub(style, _read("index.html")))
    page = _ICON.sub(f'href="data:image/svg+xml;base64,{icon}"', page)
    rules = "; ".join(f"{kind} {' '.join(found)}" for kind, found in hashes.items())
    policy = f"default-src 'none'; {rules}; img-src data:; base-uri 'none'; form-action 'none'"
    page = page.replace(
        '<meta charset="utf-8">',
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
    )
    data = f'<script type="application/json" id="frozen">{_json(answers)}</script>\n</body>'
    return data.join(page.rsplit("</body>", 1))


def joined_modules(name: str) -> str:
    """Join a module and all modules that it imports into one script."""
    joined = ['"use strict";', "const modules = {};"]
    joined += [_as_function(module, text) for module, text in _in_order(name, [], {}).items()]
    return "\n".join(joined) + "\n"


def _in_order(name: str, above: list[str], read: dict[str, str]) -> dict[str, str]:
    """Add the text of a module to `read`, after the modules that it imports.

    Args:
        above: the chain of modules whose imports led to this one.
        read: the texts by module name.
    """
    assert name not in above, f"modules import each other: {' → '.join([*above, name])}"
    if name not in read:
        text = _read(name)
        for _, imported in _IMPORT.findall(text):
            _in_order(imported, [*above, name], read)
        read[name] = text
    return read


def _as_function(name: str, text: str) -> str:
    def taken(found: re.Match[str]) -> str:
        names, module = found[1], found[2]
        if names.startswith("*"):
            names = names.removeprefix("* as ")
        return f'const {names.replace(" as ", ": ")} = modules["{module}"];'

    exported = [found[2] for found in _EXPORT.finditer(text)]
    body = _EXPORT.sub(r"\1", _IMPORT.sub(taken, text))
    left = re.search(r"^(import|export)\b.*", body, re.MULTILINE)
    assert left is None, f"{name} has a form that cannot be joined: {left and left[0]}"
    return f'modules["{name}"] = (() => {{\n{body}return {{ {", ".join(exported)} }};\n}})();'


def _read(name: str) -> str:
    text = (PAGE / name).read_text(encoding="utf-8")
    assert "</script" not in text or name.endswith(".html"), f"{name} would end its own script"
    return text


def _hash(text: str) -> str:
    """Return the text's sha256 as a source of a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(answers: Mapping[str, Any]) -> str:
    """Return JSON that cannot end the script element that contains it."""
    text = json.dumps(answers, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = with_urls(text)
    return text.replace("<", "\\u003c")
