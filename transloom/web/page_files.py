"""Files of a page, collected once at start, so that a server cannot serve any other file."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

INDEX = "index.html"
# Content types by file name suffix. All other files in the folder, such as licences, are plain
# text.
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}
NOT_SERVED = (".py", ".pyc", ".map")


@dataclass(frozen=True)
class PageFile:
    """File of a page, with its content type."""

    content: bytes
    content_type: str


def page_files(
    package: str, shared: Mapping[str, Traversable] = MappingProxyType({})
) -> dict[str, PageFile]:
    """Return all files of a package's folder `page` by relative path, such as `vendor/chart.js`.

    Args:
        shared: folders of other packages, by the name of the folder that they are in the page.
    """
    found: dict[str, PageFile] = {}
    _collect(files(package) / "page", "", found)
    for name, folder in shared.items():
        _collect(folder, f"{name}/", found)
    return found


def _collect(folder: Traversable, prefix: str, found: dict[str, PageFile]) -> None:
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        name = prefix + file.name
        if file.name.startswith((".", "__")) or file.name.endswith(NOT_SERVED):
            continue
        if file.is_dir():
            _collect(file, f"{name}/", found)
        else:
            ending = file.name[file.name.rfind(".") :] if "." in file.name else ""
            found[name] = PageFile(file.read_bytes(), TYPES.get(ending, "text/plain"))
