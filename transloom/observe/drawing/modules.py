"""Join JavaScript modules into one script, which a page without a network can contain.

Each module becomes a function that returns the module's exports. A module's function follows those
of the modules that it imports. Regular expressions find imports and exports: each must start a line
and have one of the forms below.
"""

import base64
import hashlib
import posixpath
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

DRAWING: Traversable = files("transloom.observe.drawing")

# Supported forms of imports and exports:
#   import { a, b } from "./x.js";
#   import * as x from "../directory/x.js";
#   export function a, export async function a, export function* a, export class a, export const a
_IMPORT = re.compile(r'^import (\{[^}]*\}|\* as \w+) from "(\.\.?/[\w./]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function\*?|class|const) (\w+))", re.MULTILINE)


def joined_modules(
    folder: Traversable, *names: str, shared: Mapping[str, Traversable] = MappingProxyType({})
) -> str:
    """Join modules and all modules that they import into one script.

    Args:
        folder: the directory of the modules, which contains all that they import.
        names: paths of modules in this directory; the script runs them in this order.
        shared: other directories, by their names in this one.
    """

    def file(name: str) -> Traversable:
        first, *rest = name.split("/")
        return shared[first].joinpath(*rest) if first in shared else folder.joinpath(first, *rest)

    read: dict[str, str] = {}
    for name in names:
        _read_in_order(file, name, [], read)
    joined = ['"use strict";', "const modules = {};"]
    joined += [_as_function(name, text) for name, text in read.items()]
    return "\n".join(joined) + "\n"


def hash_source(text: str) -> str:
    """Return the text's sha256 as a source of a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _read_in_order(
    file: Callable[[str], Traversable], name: str, above: list[str], read: dict[str, str]
) -> None:
    """Add the text of a module to `read`, after the modules that it imports.

    Args:
        file: function that returns the file of a module.
        above: the chain of modules whose imports led to this one.
        read: the texts by module name.
    """
    assert name not in above, f"modules import each other: {' → '.join([*above, name])}"
    if name not in read:
        text = file(name).read_text(encoding="utf-8")
        assert "</script" not in text, f"{name} would end its own script"
        for _, imported in _IMPORT.findall(text):
            _read_in_order(file, _path(name, imported), [*above, name], read)
        read[name] = text


def _path(name: str, imported: str) -> str:
    """Return the path of a module that module `name` imports."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), imported))


def _as_function(name: str, text: str) -> str:
    def taken(found: re.Match[str]) -> str:
        names = found[1].removeprefix("* as ").replace(" as ", ": ")
        return f'const {names} = modules["{_path(name, found[2])}"];'

    exported = [found[2] for found in _EXPORT.finditer(text)]
    body = _EXPORT.sub(r"\1", _IMPORT.sub(taken, text))
    left = re.search(r"^(import|export)\b.*", body, re.MULTILINE)
    assert left is None, f"{name} has a form that cannot be joined: {left and left[0]}"
    return f'modules["{name}"] = (() => {{\n{body}return {{ {", ".join(exported)} }};\n}})();'
