"""Serve the files of a page, which are collected once at start: no other file can be served."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

from aiohttp import web

INDEX = "index.html"
SHARED = files("transloom.web") / "shared"  # style sheets that several pages use
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


def page_routes(
    package: str, shared: Mapping[str, Traversable] = MappingProxyType({})
) -> list[web.RouteDef]:
    """Return the routes of a package's page: the start page at `/`, all files below `/static/`.

    See `page_files` for the arguments.
    """
    served = page_files(package, shared)

    async def respond(request: web.Request) -> web.Response:
        name = request.match_info.get("name", INDEX)
        file = served.get(name)
        if file is None:
            reason = f"the page has no file {name!r:.100}"
            raise web.HTTPNotFound(reason=reason, text=reason)
        return web.Response(body=file.content, content_type=file.content_type, charset="utf-8")

    return [web.get("/", respond), web.get("/static/{name:.+}", respond)]


def page_files(
    package: str, shared: Mapping[str, Traversable] = MappingProxyType({})
) -> dict[str, PageFile]:
    """Return all files of a package's folder `page` by relative path, such as `vendor/chart.js`.

    Args:
        shared: folders of other packages, by their folder names in the page.
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
